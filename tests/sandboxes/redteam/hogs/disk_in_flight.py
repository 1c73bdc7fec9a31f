"""More on the disk than may be, in files without a name that are on their way between two sockets."""

import array
import os
import socket
import time

one, other = socket.socketpair()
for number in range(6):
    fd = os.open("u%d" % number, os.O_CREAT | os.O_RDWR)
    os.unlink("u%d" % number)
    for _ in range(28):
        os.write(fd, b"x" * (1 << 20))
    one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)
time.sleep(10)
print("HAD IT ALL")
