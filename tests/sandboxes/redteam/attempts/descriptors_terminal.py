"""Open the terminal of whoever runs kai."""

import glob
import os

from tools import each

each(
    lambda it=it: os.open(it, os.O_RDWR | os.O_NOCTTY)
    for it in ["/dev/tty", "/dev/console", "/dev/tty0", "/dev/ptmx", *glob.glob("/dev/pts/*")]
)
