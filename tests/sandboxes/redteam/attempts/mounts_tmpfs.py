"""Mount a file system in memory, and a directory upon another."""

from tools import each, syscall

each(
    [
        lambda: (syscall("mount", b"none", b"/tmp", b"tmpfs", 0, None), "tmpfs"),
        lambda: (syscall("mount", b"/usr", b"/tmp", None, 4096, None), "bind"),
        lambda: (syscall("mount", b"none", b"/", None, 32, None), "remount"),
        lambda: (syscall("mount", b"none", b"/", None, (1 << 32) | 32, None), "remount, high half"),
    ]
)
