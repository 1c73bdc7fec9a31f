"""A daemon by the book, which ignores what can be ignored, and goes on writing."""

import os
import signal
import time

if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
end = time.monotonic() + 20
while time.monotonic() < end:
    with open("daemon", "a") as file:
        file.write("x")
