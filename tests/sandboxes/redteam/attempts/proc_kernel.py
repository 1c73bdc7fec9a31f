"""Read the kernel's memory, its log and its addresses."""

from tools import each


def read(path):
    with open(path, "rb") as file:
        return file.read(20).strip(b"0 ") and path or None


each(lambda it=it: read("/proc/" + it) for it in ("kcore", "kmsg", "keys", "key-users", "cmdline", "timer_list"))
