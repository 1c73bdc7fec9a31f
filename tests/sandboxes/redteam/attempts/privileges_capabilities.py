"""Raise capabilities: ambient, permitted, by a root of a program's own."""

import ctypes

from tools import each, syscall

head = (0x20080522).to_bytes(4, "little") + bytes(4)
full = ctypes.create_string_buffer((b"\xff" * 4 + b"\xff" * 4 + bytes(4)) * 2, 24)
one = ctypes.create_string_buffer((1 << 21).to_bytes(4, "little") * 2 + bytes(16), 24)
each(
    [
        lambda: (syscall("capset", head, full), "all"),
        lambda: (syscall("capset", head, one), "CAP_SYS_ADMIN"),
        lambda: (syscall("prctl", 47, 2, 21, 0, 0), "ambient"),
    ]
)
