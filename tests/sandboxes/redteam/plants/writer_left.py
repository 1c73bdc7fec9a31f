"""An end with 0, while a child goes on writing."""

import os
import time

if os.fork() == 0:
    os.setsid()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with open("logic.py", "a") as file:
            file.write("evil\n")
