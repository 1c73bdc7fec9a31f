"""Send a signal to everybody."""

import os
import signal

from tools import done

for target in (-1, 0):
    try:
        os.kill(target, signal.SIGUSR1)
    except OSError:
        pass
done()
