"""Read a file of the user's that everyone on the machine may read."""

from tools import TARGETS, won

with open(TARGETS["secret"]) as file:
    won(file.read())
