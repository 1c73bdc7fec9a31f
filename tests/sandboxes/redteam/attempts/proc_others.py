"""See a process of the host: kai, and one of the user's."""

import glob

from tools import TARGETS, held, won

for path in glob.glob("/proc/[0-9]*/cmdline"):
    with open(path, "rb") as file:
        if TARGETS["sleeper"].encode() in file.read():
            won(path)
held()
