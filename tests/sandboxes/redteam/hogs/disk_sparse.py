"""A file of 10 TB, by each way to make one long."""

import os

for way in (
    lambda fd: os.ftruncate(fd, 10 << 40),
    lambda fd: os.posix_fallocate(fd, 0, 10 << 40),
    lambda fd: os.pwrite(fd, b"x", 10 << 40),
):
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
    try:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        way(fd)
        print("HAD IT ALL")
    except OSError as error:
        print("HAD NOT", error)
