"""Say by hand that a file's bytes lie elsewhere, where a secret is."""

import os

from tools import TARGETS, won

with open("redirected", "w") as file:
    file.write("mine")
for name, value in (("metacopy", b""), ("redirect", TARGETS["secret"].encode())):
    for space in ("user.overlay.", "trusted.overlay.", "user.overlay.overlay."):
        try:
            os.setxattr("redirected", space + name, value)
        except OSError:
            pass
with open("redirected") as file:
    text = file.read()
    won(text) if text != "mine" else print("DONE")
