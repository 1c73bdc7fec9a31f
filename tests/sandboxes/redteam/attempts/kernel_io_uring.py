"""Have calls made by the kernel, past the filter."""

import ctypes

from tools import each, syscall

each([lambda: syscall("io_uring_setup", 1, ctypes.create_string_buffer(120))])
