"""Slow other processes of the machine down, or bind them to a processor."""

import os
import resource

from tools import TARGETS, each

pid = TARGETS["pids"][0]
each(
    [
        lambda: (os.setpriority(os.PRIO_PROCESS, pid, 10), "nice"),
        lambda: (os.sched_setaffinity(pid, {0}), "affinity"),
        lambda: resource.prlimit(pid, resource.RLIMIT_CORE),
    ]
)
