"""Forge a deletion: the device that an overlay takes for one."""

import os
import stat

from tools import won

os.mknod("forged", stat.S_IFCHR | 0o600, 0)
won("mknod c 0 0")
