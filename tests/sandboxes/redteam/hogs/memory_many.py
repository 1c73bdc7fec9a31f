"""More memory than there may be, in many processes that hold it at once."""

import os
import time


def hold():
    held = bytearray(10**8)
    time.sleep(10)
    os._exit(0 if held else 1)


if os.fork() == 0:
    pass
pids = [os.fork() or hold() for _ in range(5)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
print("HAD NOT" if any(codes) else "HAD IT ALL")
