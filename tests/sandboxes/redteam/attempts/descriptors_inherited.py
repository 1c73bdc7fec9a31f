"""Use a descriptor that kai had open."""

import os

from tools import held, won

for fd in range(3, 4096):
    try:
        os.fstat(fd)
    except OSError:
        continue
    won(fd)
held()
