"""Make a file that nobody can remove, nor root without knowing."""

import array
import fcntl
import os

from tools import each

fd = os.open("flags.txt", os.O_CREAT | os.O_RDWR)


def flag(bit):
    fcntl.ioctl(fd, 0x40086602, array.array("l", [bit]))  # FS_IOC_SETFLAGS
    fcntl.ioctl(fd, 0x40086602, array.array("l", [0]))
    return bit


each([lambda: flag(0x10), lambda: flag(0x20)])
