"""Trace process 1."""

from tools import each, syscall

each(lambda it=it: (syscall("ptrace", it, 1, 0, 0), "attached") for it in (16, 0x4206))
