"""One file under many names, so that each counts."""

import os

with open("one", "wb") as file:
    file.write(b"x" * (4 << 20))
for number in range(200):
    os.link("one", "again%d" % number)
