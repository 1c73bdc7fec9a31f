"""A gigabyte of output."""

import os

piece = b"x" * (1 << 20)
for _ in range(1024):
    os.write(1, piece)
os.write(2, b"HAD IT ALL")
