"""Be root again, or anybody else."""

import os

from tools import each

each(
    [
        lambda: (os.setuid(0), os.getuid()),
        lambda: (os.setresuid(0, 0, 0), os.getresuid()),
        lambda: (os.seteuid(0), os.geteuid()),
        lambda: (os.setgroups([0]), os.getgroups()),
        lambda: (os.setgid(0), os.getgid()),
        lambda: (os.setresuid(65533, 65533, 65533), os.getresuid()),
    ]
)
