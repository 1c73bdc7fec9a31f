"""Set an attribute that only root of the machine may set."""

import os

from tools import each

each(
    lambda it=it: os.setxattr("attributes.txt", it, b"y") or it
    for it in ("trusted.overlay.opaque", "trusted.x", "security.capability", "security.x")
)
