"""Make namespaces with a new process."""

import os

from tools import HIGH, each, syscall


def attack(flags):
    pid = syscall("clone", flags | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return hex(flags)


FLAGS = (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000)
each(lambda it=it: attack(it) for flag in FLAGS for it in (flag, flag | HIGH))
