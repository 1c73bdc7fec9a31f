"""Mount by the calls of newer kernels."""

import ctypes

from tools import each, syscall

attributes = ctypes.create_string_buffer(32)
each(
    [
        lambda: syscall("fsopen", b"tmpfs", 0),
        lambda: syscall("open_tree", -100, b"/", 1),
        lambda: syscall("fspick", -100, b"/", 0),
        lambda: (syscall("mount_setattr", -100, b"/", 0, attributes, 32), "attributes"),
        lambda: syscall("open_tree_attr", -100, b"/", 1, attributes, 32),
    ]
)
