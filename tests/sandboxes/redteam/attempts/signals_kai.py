"""Send a signal to a process of the host by its number."""

import os

from tools import TARGETS, each

each(lambda it=it: (os.kill(it, 0), "there") for it in TARGETS["pids"])
