"""Follow a link of one's own out of the agent."""

import os

from tools import TARGETS, won

os.symlink(TARGETS["secret"], "way-out")
try:
    with open("way-out") as file:
        won(file.read())
finally:
    os.unlink("way-out")
