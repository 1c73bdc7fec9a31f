"""Memory that is no process's: segments that outlive whoever made them."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for _ in range(10):
    number = libc.shmget(0, 60 << 20, 0o1600)
    at = libc.shmat(number, None, 0) if number >= 0 else -1
    if number < 0 or at in (-1, 2**64 - 1):
        raise MemoryError(os.strerror(ctypes.get_errno()))
    ctypes.memset(at, 1, 60 << 20)
    libc.shmdt(ctypes.c_void_p(at))
print("HAD IT ALL")
