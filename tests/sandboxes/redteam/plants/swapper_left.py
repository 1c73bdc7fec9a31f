"""An end with 0, while a child swaps a directory for a link out of the agent and back."""

import os
import time

os.mkdir("swapped")
with open("swapped/x", "w") as file:
    file.write("x")
if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        os.rename("swapped", "away")
        os.symlink("/etc", "swapped")
        os.unlink("swapped")
        os.rename("away", "swapped")
