"""Learn the name of the machine."""

import os

from tools import TARGETS, held, won

won(os.uname().nodename) if os.uname().nodename == TARGETS["host"] else held()
