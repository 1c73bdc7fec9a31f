"""Read the environment and the memory of process 1."""

from tools import each


def read(path):
    with open(path, "rb") as file:
        return file.read(100)


each(lambda it=it: read("/proc/1/" + it) or None for it in ("environ", "maps", "stack", "auxv", "syscall"))
