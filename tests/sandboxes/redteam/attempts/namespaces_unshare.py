"""Make namespaces, in which one would be root."""

from tools import HIGH, each, syscall

FLAGS = (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x8000000, 0x4000000, 0x2000000, 0x80, 0x7E020000)
each(lambda it=it: (syscall("unshare", it), hex(it)) for flag in FLAGS for it in (flag, flag | HIGH))
