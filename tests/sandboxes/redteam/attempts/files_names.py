"""Ask for the size of a file of the user's, without opening it."""

import os

from tools import TARGETS, won

won(os.stat(TARGETS["secret"]).st_size)
