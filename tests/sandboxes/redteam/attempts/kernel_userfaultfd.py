"""Hold the kernel up in the middle of a call."""

from tools import each, syscall

each(
    [lambda: syscall("userfaultfd", 1), lambda: syscall("memfd_secret", 0), lambda: syscall("fanotify_init", 0x200, 0)]
)
