"""More on the disk than may be, in files without a name that are only mapped."""

import mmap
import os
import time

held = []
for number in range(6):
    fd = os.open("u%d" % number, os.O_CREAT | os.O_RDWR)
    os.unlink("u%d" % number)
    for _ in range(28):
        os.write(fd, b"x" * (1 << 20))
    held.append(mmap.mmap(fd, 4096))
    os.close(fd)
    os.closerange(3, 100)  # mmap keeps a descriptor of its own
time.sleep(10)
print("HAD IT ALL")
os._exit(0)
