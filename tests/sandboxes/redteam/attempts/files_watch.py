"""Be told what goes on in a directory of the host, without opening it."""

import os

from tools import TARGETS, syscall, won

fd = syscall("inotify_init1", 0)
won(syscall("inotify_add_watch", fd, os.fsencode(TARGETS["place"]), 0x3FF))
