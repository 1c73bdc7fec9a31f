"""Hold a file open for reading, change it otherwise, and reopen what is held for writing."""

import os

from tools import done

fd = os.open("held.txt", os.O_RDONLY)
try:
    os.write(os.open("/proc/self/fd/%d" % fd, os.O_RDWR), b"EVIL")
except OSError:
    os.write(os.open("held.txt", os.O_RDWR), b"EVIL")
done()
