"""Run programs of the host that become root."""

import os
import subprocess
import time

from tools import held, won

ran = 0
for path in ("/usr/bin/su", "/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/chsh"):
    if not os.path.exists(path) or not os.stat(path).st_mode & 0o4000:
        continue
    it = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(20):
        try:
            with open("/proc/%d/status" % it.pid) as file:
                ids = next(line for line in file if line.startswith("Uid:")).split()[1:]
        except OSError:
            break
        if ids[1] != ids[0]:
            won("%s: %s" % (path, ids))
        time.sleep(0.002)
    it.kill()
    it.wait()
held()
