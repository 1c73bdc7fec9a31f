"""Make a program that gives its owner's rights to others, each way a file can get them."""

import os

from tools import HIGH, IS_X86, each, syscall


def bits(path):
    return oct(os.stat(path).st_mode) if os.stat(path).st_mode & 0o6000 else None


def plant(name, make):
    try:
        made = make(name)
        if isinstance(made, int):
            os.close(made)
        return bits(name)
    finally:
        if os.path.lexists(name):
            os.unlink(name)


def late(how):
    def make(name):
        fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o755)
        how(name, fd)
        return fd

    return make


ways = [
    late(lambda name, fd: os.chmod(name, 0o4755)),
    late(lambda name, fd: os.chmod(name, 0o2755)),
    late(lambda name, fd: os.fchmod(fd, 0o4755)),
    late(lambda name, fd: os.chmod(name, 0o4755, dir_fd=os.open(".", os.O_RDONLY))),
    late(lambda name, fd: syscall("fchmodat2", -100, name.encode(), 0o4755, 0)),
    late(lambda name, fd: syscall("fchmodat2", -100, name.encode(), HIGH | 0o4755, 0)),
    lambda name: os.open(name, os.O_CREAT | os.O_WRONLY, 0o4755),
    lambda name: os.open(name, os.O_CREAT | os.O_WRONLY, 0o6777),
    lambda name: os.mknod(name, 0o104755),
]
if IS_X86:
    ways.append(lambda name: syscall(85, name.encode(), 0o4755))
    ways.append(lambda name: syscall("chmod", name.encode(), 0o4755) if os.mknod(name) is None else None)
each(lambda n=n, it=it: plant("bits%d" % n, it) for n, it in enumerate(ways))
