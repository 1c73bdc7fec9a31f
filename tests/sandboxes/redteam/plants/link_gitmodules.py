"""A link under a name that git reads as a file of its own."""

import os

os.symlink("logic.py", ".gitmodules")
