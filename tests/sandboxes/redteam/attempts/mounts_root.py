"""Change the root."""

from tools import each, syscall

each([lambda: (syscall("chroot", b"/tmp"), "chroot"), lambda: (syscall("pivot_root", b".", b"."), "pivot")])
