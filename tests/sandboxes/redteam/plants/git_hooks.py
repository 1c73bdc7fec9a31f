"""Hooks that git would run in a checkout."""

import os

os.makedirs(".git/hooks")
with open(".git/hooks/post-checkout", "w") as file:
    file.write("#!/bin/sh\ntouch /tmp/redteam-hook\n")
os.fchmod(os.open(".git/hooks/post-checkout", os.O_RDONLY), 0o755)
