"""Read and write the memory of another process without tracing it."""

import ctypes

from tools import TARGETS, each, syscall

buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
tries = [(call, pid) for call in ("process_vm_readv", "process_vm_writev") for pid in (1, *TARGETS["pids"])]


def attack(call, pid):
    try:
        return syscall(call, pid, vector, 1, vector, 1, 0)
    except OSError as error:
        if error.errno == 14:  # it looked, and there was no such address
            return "EFAULT"
        raise


each(lambda it=it: attack(*it) for it in tries)
