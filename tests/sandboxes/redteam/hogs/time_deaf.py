"""Outlast the clock: deaf to every signal, stopped, with children that are too."""

import os
import signal
import time

for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        os.kill(os.getpid(), signal.SIGSTOP)
os.setsid() if os.getpgrp() != os.getpid() else None
end = time.monotonic() + 30
while time.monotonic() < end:
    time.sleep(0.1)
