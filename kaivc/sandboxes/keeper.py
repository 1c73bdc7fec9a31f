"""The child of a Landlock sandbox, in a fresh interpreter: a keeper, and below it the command.

There is no pid namespace, whose end would be the end of all that is in it. So whatever the command leaves behind
becomes the keeper's child, and the keeper ends only when it has killed all of them; it does so when kai hangs up, for
whatever reason. It is not the command's to signal: as root it is root's, and else Landlock keeps signals within.
"""

from __future__ import annotations

import os
import select

from kaivc.sandboxes import confine, inside, kernel, looking
from kaivc.sandboxes.talk import SOCKET, Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

PR_SET_CHILD_SUBREAPER = 36
KILL = 9
TURN_MS = 100
"""How often those are reaped that became the keeper's children."""
TRIES = 100
"""How often children are looked for before all that descends from them is looked for again."""

READ = 0b1101  # execute, read a file, read a directory
READ_FILE, EXECUTE = 0b0100, 0b0001
WRITE_FILE = 0b0010 | 1 << 14  # and truncate
DEVICES = 1 << 6 | 1 << 11  # make a character or a block device
IOCTL = 1 << 15
TCP = 0b11  # bind, connect
SCOPES = 0b11  # abstract sockets, signals
_FILES = {3: (1 << 15) - 1, 4: (1 << 15) - 1}
_FILES_NEWEST = (1 << 16) - 1
_NET_FROM, _SCOPES_FROM = 4, 6
_BENEATH = 1


def keep_below(_: Child) -> None:
    """Orphans become this process's children, at whatever depth they are."""
    kernel.call("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_here(child: Child) -> None:
    """The copy is where the command starts."""
    os.chdir(child.told[b"start"])


def leave_groups(child: Child) -> None:
    """No groups, where they can be left."""
    if child.number(b"privileged"):
        kernel.call("setgroups", 0, None)
        confine.drop_bounding(child)
        confine.lock_securebits(child)
        confine.take_ids(child)


def restrict_files(child: Child) -> None:
    """Landlock's rules, and a try: what must not open does not."""
    version = kernel.call("landlock_create_ruleset", None, 0, 1)
    files = _FILES.get(version, _FILES_NEWEST)
    words = [files]
    words += [TCP] if version >= _NET_FROM else []
    words += [SCOPES] if version >= _SCOPES_FROM else []
    attributes = b"".join(word.to_bytes(8, "little") for word in words)
    ruleset = kernel.call("landlock_create_ruleset", attributes, len(attributes), 0)
    for name, allowed in (
        (b"trees", READ),
        (b"files", READ_FILE | EXECUTE),
        (b"devices", (READ_FILE | WRITE_FILE)),
        (b"writable", files & ~DEVICES & ~IOCTL),
    ):
        for path in child.several(name):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            kernel.call(
                "landlock_add_rule", ruleset, _BENEATH, allowed.to_bytes(8, "little") + fd.to_bytes(4, "little"), 0
            )
            os.close(fd)
    kernel.call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
    for closed in ("/", "/proc", "/proc/self/environ"):
        try:
            os.close(os.open(closed, os.O_RDONLY | os.O_CLOEXEC))
        except PermissionError:
            continue
        raise OSError(0, "it can still be read", closed)
    child.told[b"landlock"] = b"%d" % version


KEEPER: list[tuple[str, Callable[[Child], None]]] = [("keeper", keep_below)]
PAYLOAD: list[tuple[str, Callable[[Child], None]]] = [
    ("session", confine.start_session),
    ("keyring", confine.fresh_keyring),
    ("descriptors", confine.keep_descriptors),
    ("start", start_here),
    ("limits", confine.set_limits),
    ("uid", leave_groups),
    ("capabilities", confine.give_up_capabilities),
    ("no_new_privs", confine.forbid_new_privileges),
    ("landlock", restrict_files),
    ("seccomp", confine.filter_calls),
]


def main() -> NoReturn:
    """The keeper, from its first breath; the command begins in its child."""
    os.closerange(SOCKET + 1, 1 << 20)
    child = Child()
    parts = child.hear()
    child.told = dict(zip(parts[::2], parts[1::2], strict=True))
    child.go_through(KEEPER)
    pid = os.fork()
    if pid == 0:
        inside.payload(child, PAYLOAD)
    inside.leave_output(child)
    poll = select.poll()
    poll.register(SOCKET, 0)  # only that kai hangs up; what kai says is for the payload
    ended = os.pidfd_open(pid)
    poll.register(ended, select.POLLIN)
    microseconds = peak = 0
    while not any(fd == SOCKET for fd, _ in poll.poll(TURN_MS)):
        while True:
            try:
                done, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not done:
                break
            microseconds += int((usage.ru_utime + usage.ru_stime) * 1e6)
            peak = max(peak, usage.ru_maxrss)
            if done == pid:
                poll.unregister(ended)
                child.tell(b"ended", b"%d" % os.waitstatus_to_exitcode(status), b"%d" % microseconds, b"%d" % peak)
    kill_all(child)
    os._exit(0)


def kill_all(child: Child) -> None:
    """Kill all that descends from here, until this has no child: then nothing is left.

    What is orphaned becomes a child; and what is never the same process for long is caught as one, for to look at all
    processes takes too long.
    """
    while _has_children():
        if child.number(b"privileged"):
            _kill_uid(child)
        _kill(it.pid for it in looking.family(os.getpid()))
        for _ in range(TRIES):
            if not _has_children():
                return
            _kill(_children())


def _children() -> list[int]:
    try:
        return looking.children(os.getpid())
    except OSError:  # a kernel that does not say
        return []


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, KILL)
        except (ProcessLookupError, PermissionError):
            continue


def _has_children() -> bool:
    """Whether there is a child when those that have ended are waited for."""
    try:
        while os.wait4(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_uid(child: Child) -> None:
    """All at once, before one of them can start another: the uid is theirs alone."""
    pid = os.fork()
    if pid == 0:
        confine.take_ids(child)
        try:
            os.kill(-1, KILL)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
