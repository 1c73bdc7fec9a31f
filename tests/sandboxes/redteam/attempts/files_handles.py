"""Open a file by its handle, past every directory."""

import ctypes

from tools import syscall, won

handle = ctypes.create_string_buffer((128).to_bytes(4, "little") + bytes(132), 136)
mount = ctypes.c_int()
won(syscall("name_to_handle_at", -100, b"/usr", handle, ctypes.byref(mount), 0))
