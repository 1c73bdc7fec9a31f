"""Use the keys of the user's session."""

from tools import each, syscall

each(
    [
        lambda: syscall("keyctl", 0, -3, 0),
        lambda: syscall("keyctl", 0, -4, 1),
        lambda: syscall("add_key", b"user", b"redteam", b"x", 1, -3),
        lambda: syscall("request_key", b"user", b"redteam", None, -3),
    ]
)
