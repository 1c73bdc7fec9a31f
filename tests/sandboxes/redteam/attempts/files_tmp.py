"""Read what the user has in /tmp."""

from tools import TARGETS, won

with open(TARGETS["in_tmp"]) as file:
    won(file.read())
