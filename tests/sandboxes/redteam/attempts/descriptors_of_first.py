"""Take a descriptor of process 1."""

import os

from tools import each, syscall


def take():
    fd = syscall("pidfd_open", 1, 0)
    return [syscall("pidfd_getfd", fd, it, 0) for it in range(4)]


each([take, lambda: os.listdir("/proc/1/fd") or None, lambda: os.open("/proc/1/fd/3", os.O_RDWR)])
