"""Make a file among the programs that every command sees."""

import os

from tools import each, won


def plant(directory):
    path = directory + "/redteam-planted"
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)
    won(path)


each(
    [lambda it=it: plant(it) for it in ("/usr/bin", "/usr/lib", "/bin", "/lib", "/etc", "/", "/usr/local/bin", "/var")]
)
