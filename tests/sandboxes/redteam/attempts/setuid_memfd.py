"""Run a program from memory that is nobody's file, with its owner's rights."""

import os

from tools import each, syscall


def attack():
    fd = syscall("memfd_create", b"x", 0)
    os.fchmod(fd, 0o4755)
    return oct(os.fstat(fd).st_mode)


each([attack])
