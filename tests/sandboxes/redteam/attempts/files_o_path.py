"""Open a file as a mere place, and open that again by its descriptor."""

import os

from tools import TARGETS, won

fd = os.open(TARGETS["secret"], os.O_PATH)
won(os.read(os.open("/proc/self/fd/%d" % fd, os.O_RDONLY), 100))
