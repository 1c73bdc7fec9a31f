"""More memory than there may be, in many processes."""

import os
import time

if os.fork() == 0:
    pass
pids = [os.fork() or os._exit(len(bytearray(10**8)) and (time.sleep(10) or 0)) for _ in range(5)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
print("HAD NOT" if any(codes) else "HAD IT ALL")
