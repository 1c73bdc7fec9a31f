"""Make a device of one's own."""

import os
import stat

from tools import HIGH, each, syscall

ways = [
    lambda: (os.mknod("m1", stat.S_IFCHR | 0o666, os.makedev(1, 1)), "mem"),
    lambda: (os.mknod("m2", stat.S_IFBLK | 0o666, os.makedev(253, 0)), "disk"),
    lambda: (os.mknod("/tmp/m3", stat.S_IFCHR | 0o666, os.makedev(1, 3)), "null"),
    lambda: (syscall("mknodat", -100, b"m4", HIGH | stat.S_IFCHR | 0o666, 257), "high half"),
]
each(ways)
