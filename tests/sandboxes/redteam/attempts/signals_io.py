"""Have the kernel send a signal to a process of the host, as the owner of a pipe."""

import fcntl
import os
import time

from tools import TARGETS, done

for pid in TARGETS["pids"]:
    for target in (pid, -pid):
        try:
            read_end, write_end = os.pipe()
            fcntl.fcntl(read_end, 8, target)  # F_SETOWN
            fcntl.fcntl(read_end, 10, 12)  # F_SETSIG, SIGUSR2
            fcntl.fcntl(read_end, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
            os.write(write_end, b"x")
        except OSError:
            pass
time.sleep(0.05)
done()
