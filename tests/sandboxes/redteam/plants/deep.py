"""Directories 3,000 deep."""

import os

for _ in range(3000):
    os.mkdir("e")
    os.chdir("e")
with open("x", "w") as file:
    file.write("x")
