"""Read the environment of every process that is to be seen."""

import glob

from tools import TARGETS, held, won

for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        with open(path, "rb") as file:
            if TARGETS["variable"].encode() in file.read():
                won(path)
    except OSError:
        pass
held()
