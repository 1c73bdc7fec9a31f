"""Files that are long and empty: quick to make, slow to read."""

import os

for number in range(60):
    fd = os.open("long%d" % number, os.O_CREAT | os.O_WRONLY)
    os.ftruncate(fd, 16 << 20)
