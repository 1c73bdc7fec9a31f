"""A daemon that is never the same process for longer than a moment, and in no group of the last."""

import os
import time

end = time.monotonic() + 4
if os.fork():
    os._exit(0)
while time.monotonic() < end:
    if os.fork():
        os._exit(0)
    os.setsid()
    with open("chain", "w") as file:
        file.write(str(time.time()))
