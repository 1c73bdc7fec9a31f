"""Overwrite the running program, the interpreter of the host."""

import os

from tools import each

each(
    lambda it=it: os.open(it, os.O_RDWR) for it in ("/proc/self/exe", "/proc/1/exe", os.path.realpath("/proc/self/exe"))
)
