"""Take away the covers of /proc, and the file systems that are there."""

from tools import each, syscall

each(lambda it=it: (syscall("umount2", it, 2), it) for it in (b"/proc/keys", b"/proc/1", b"/proc", b"/tmp", b"/usr"))
