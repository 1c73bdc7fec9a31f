"""Write into the version where it lies on the host."""

from tools import TARGETS, won

with open(TARGETS["lower"] + "/planted", "w") as file:
    won(file.write("x"))
