"""Give the machine another name."""

from tools import TARGETS, syscall, won

name = TARGETS["host"].encode()
won(syscall("sethostname", name, len(name)))
