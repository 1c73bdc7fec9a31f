"""Load a program into the kernel."""

import ctypes

from tools import each, syscall

words = (ctypes.c_uint * 18)(2, 4, 4, 1)
each([lambda: syscall("bpf", 0, words, 72), lambda: syscall("perf_event_open", words, 0, -1, -1, 0)])
