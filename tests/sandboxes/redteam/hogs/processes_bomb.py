"""A fork bomb that tells how many it is."""

import os
import time

made = 0
end = time.monotonic() + 1.5
try:
    while time.monotonic() < end:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        made += 1
except OSError:
    pass
print("MADE", made, flush=True)
os._exit(0)
