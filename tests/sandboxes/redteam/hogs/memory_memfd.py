"""Memory that is no process's: files without a name, written and not mapped."""

import os
import time

fds = []
for _ in range(24):
    fd = os.memfd_create("x")
    for _ in range(24):
        os.write(fd, b"x" * (1 << 20))
    fds.append(fd)
print("HAD IT ALL", flush=True)
time.sleep(0.5)
