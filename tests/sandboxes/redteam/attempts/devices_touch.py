"""Give the machine's /dev/null another time."""

import os

from tools import each

each([lambda: (os.utime("/dev/null", (86400, 86400)), "time"), lambda: (os.utime("/dev/null"), "now")])
