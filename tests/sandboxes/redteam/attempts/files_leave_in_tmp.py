"""Leave a file in the machine's /tmp and its kin."""

import os

from tools import TARGETS, done

for directory in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/run/user"):
    try:
        os.close(os.open(directory + "/" + TARGETS["mark"], os.O_CREAT | os.O_WRONLY, 0o666))
    except OSError:
        pass
done()
