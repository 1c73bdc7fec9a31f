"""Write the memory of process 1."""

import os

from tools import each

each(
    lambda it=it: os.open("/proc/1/" + it, os.O_RDWR) for it in ("mem", "clear_refs", "oom_score_adj", "timerslack_ns")
)
