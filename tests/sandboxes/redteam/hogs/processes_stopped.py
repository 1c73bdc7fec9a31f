"""A child that is stopped, and so cannot end; the command says that all went well."""

import os
import signal
import time

pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(20)
    os._exit(0)
os.waitpid(pid, os.WUNTRACED)
os._exit(0)
