"""Directories and files that nobody may look into."""

import os

os.makedirs("closed/inner")
with open("closed/inner/x", "w") as file:
    file.write("x")
for path in ("closed/inner/x", "closed/inner", "closed"):
    fd = os.open(path, os.O_RDONLY)
    os.fchmod(fd, 0)
