"""Give a file of the user's a second name in the agent, and read it under that."""

import os

from tools import TARGETS, won

os.link(TARGETS["secret"], "hard-way-out")
try:
    with open("hard-way-out") as file:
        won(file.read())
finally:
    os.unlink("hard-way-out")
