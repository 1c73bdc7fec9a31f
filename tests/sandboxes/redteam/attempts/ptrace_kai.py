"""Trace a process of the host by its number."""

from tools import TARGETS, each, syscall

each(lambda it=it: (syscall("ptrace", 0x4206, it, 0, 0), "seized") for it in TARGETS["pids"])
