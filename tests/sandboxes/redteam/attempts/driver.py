"""Takes every attempt beside it in turn, each a program of its own, and says in JSON how it went."""

import glob
import json
import os
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGIO):  # for those that signal everybody
    signal.signal(number, signal.SIG_IGN)
for path in sorted(glob.glob(HERE + "/*_*.py")):
    name = os.path.basename(path)[:-3]
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        continue
    began = time.monotonic()
    one = subprocess.Popen(
        [sys.executable, "-S", "-s", "-E", "-B", path],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        close_fds=False,
        restore_signals=False,
    )
    try:
        said = one.communicate(timeout=10)[0]
    except subprocess.TimeoutExpired:
        one.kill()
        said = b"BROKEN: it took too long"
        one.communicate()
    print(
        json.dumps(
            {
                "name": name,
                "code": one.returncode,
                "seconds": time.monotonic() - began,
                "said": said.decode(errors="replace"),
            }
        ),
        flush=True,
    )
