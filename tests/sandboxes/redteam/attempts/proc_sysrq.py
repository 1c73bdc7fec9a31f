"""Open the trigger that reboots the machine."""

import os
import stat

from tools import held, won

fd = os.open("/proc/sysrq-trigger", os.O_WRONLY)  # never written
won() if not stat.S_ISCHR(os.fstat(fd).st_mode) else held("it is /dev/null")
