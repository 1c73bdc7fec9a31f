"""A socket at a path."""

import os
import stat

os.mknod("control", stat.S_IFSOCK | 0o666)
