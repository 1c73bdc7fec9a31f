"""Make a system call of x32, which a filter of numbers overlooks."""

from tools import IS_X86, each, held, syscall

if not IS_X86:
    held("not on this machine")
each([lambda: (syscall(0x40000000 | 272, 0x10000000), "unshared"), lambda: syscall(0x40000000 | 39)])
