"""A link to a file of the machine, for whoever follows it later."""

import os

os.symlink("/etc/passwd", "readme.txt")
