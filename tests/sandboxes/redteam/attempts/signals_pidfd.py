"""Send a signal through a descriptor of a process."""

from tools import TARGETS, each, syscall


def attack(pid):
    fd = syscall("pidfd_open", pid, 0)
    return syscall("pidfd_send_signal", fd, 12, None, 0) or "sent"


each(lambda it=it: attack(it) for it in TARGETS["pids"])
