"""Read the log, set the clock, account, swap."""

import ctypes

from tools import each, syscall

buffer = ctypes.create_string_buffer(100)
each(
    [
        lambda: syscall("syslog", 3, buffer, 100),
        lambda: syscall("syslog", 10, None, 0),
        lambda: (syscall("acct", b"/agent/state.txt"), "acct"),
        lambda: (syscall("swapon", b"/agent/state.txt", 0), "swap"),
        lambda: syscall("quotactl", 0x80000100, None, 0, buffer),
        lambda: (syscall("clock_settime", 0, buffer), "clock"),
    ]
)
