"""Open the host's list of users for writing."""

import os

from tools import each

each(
    [lambda it=it: os.open(it, os.O_WRONLY) for it in ("/etc/passwd", "/etc/hosts", "/etc/ld.so.cache", "/usr/bin/env")]
)
