"""Memory as files in what is private and lies in memory."""

import os

size = 0
for directory in ("/tmp", "/dev/shm", os.environ["HOME"]):
    try:
        for number in range(200):
            with open("%s/%d" % (directory, number), "wb", buffering=0) as file:
                size += file.write(b"x" * (4 << 20))
    except OSError:
        continue
print("WROTE", size)
