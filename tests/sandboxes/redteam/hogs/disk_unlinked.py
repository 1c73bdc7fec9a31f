"""More on the disk than may be, in files that have no name; and nobody may look at who holds them."""

import ctypes
import os
import time

ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
held = []
for number in range(6):
    fd = os.open("u%d" % number, os.O_CREAT | os.O_RDWR)
    os.unlink("u%d" % number)
    for _ in range(28):
        os.write(fd, b"x" * (1 << 20))
    held.append(fd)
time.sleep(10)
print("HAD IT ALL")
