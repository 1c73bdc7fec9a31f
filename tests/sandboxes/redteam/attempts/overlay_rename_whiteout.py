"""Have the kernel leave such a device where a file was."""

from tools import syscall, won

with open("from-here", "w"):
    won(syscall("renameat2", -100, b"from-here", -100, b"to-here", 4))
