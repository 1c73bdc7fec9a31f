"""Connect to an abstract socket of the machine."""

import socket

from tools import TARGETS, each


def attack(kind, name):
    it = socket.socket(socket.AF_UNIX, kind)
    it.connect("\0" + name)
    return name


each([lambda: attack(socket.SOCK_STREAM, TARGETS["abstract"])])
