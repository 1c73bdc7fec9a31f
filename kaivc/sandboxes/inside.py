"""The child of a native sandbox: a fresh interpreter that builds the sandbox around itself.

Three processes. The *starter* makes the namespaces and waits; kai maps the ids from outside. *init*, process 1, builds
the root. The *payload* gives up all it has, reports, and waits for kai's word, which comes only when kai has seen from
outside that each guard holds; then it becomes the command. Nothing of kai's memory or environment is here, and if kai
dies all of it dies. What goes wrong is told to kai by the name of its step; nothing goes on after that.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import resource  # noqa: F401 - os.wait4 imports it, which it cannot once the root is another

from kaivc.sandboxes import confine, kernel, rooting
from kaivc.sandboxes.talk import SOCKET, Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn
else:
    import _signal as signal  # at a fifth of the cost, and all that is needed

KILL = 9
NOT_FOUND, NOT_RUNNABLE = 127, 126
_UP = 1
_SET_FLAGS = 0x8914  # SIOCSIFFLAGS
_FDS = 4096
_NO_FORMAT = 8


# ------------------------------------------------------------ the starter


def tie_to_parent(child: Child) -> None:
    """Die with kai."""
    kernel.call("prctl", kernel.PR_SET_PDEATHSIG, KILL, 0, 0, 0)
    if child.number(b"parent") not in (os.getppid(), 0):
        os._exit(1)


def make_namespaces(_: Child) -> None:
    """Leave every namespace of kai's. The pid namespace begins with the next child."""
    apart = kernel.NEWUSER | kernel.NEWNS | kernel.NEWPID | kernel.NEWNET | kernel.NEWIPC | kernel.NEWUTS
    kernel.call("unshare", apart | kernel.NEWCGROUP)


def be_mapped(child: Child) -> None:
    """Let kai map the ids, and take those of init."""
    child.tell(b"apart")
    _, child.told[b"lower_as"] = child.hear()
    if child.told[b"groups"] == b"none":
        kernel.call("setgroups", 0, None)
    uid, gid = child.number(b"init_uid"), child.number(b"init_gid")
    kernel.call("setresgid", gid, gid, gid)
    kernel.call("setresuid", uid, uid, uid)


STARTER: list[tuple[str, Callable[[Child], None]]] = [
    ("parent", tie_to_parent),
    ("namespaces", make_namespaces),
    ("ids", be_mapped),
    ("parent", tie_to_parent),
]


def main() -> NoReturn:
    """The starter, from its first breath; becomes init and the payload in its children."""
    os.closerange(SOCKET + 1, 1 << 20)
    os.chdir("/")
    child = Child()
    parts = child.hear()
    child.told = dict(zip(parts[::2], parts[1::2], strict=True))
    child.go_through(STARTER)
    signal.alarm(child.number(b"seconds"))  # if kai itself were held up, this still ends
    if os.fork() == 0:
        init(child)
    leave_output(child)
    os.closerange(SOCKET, _FDS)
    confine.give_up_capabilities(child)
    os.wait()
    os._exit(0)


# ------------------------------------------------------------ init


def bring_up_loopback(_: Child) -> None:
    """The one interface that is there."""
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = b"lo".ljust(16, b"\0") + _UP.to_bytes(2, "little") + bytes(22)
    kernel.call("ioctl", any_socket.fileno(), _SET_FLAGS, request)
    any_socket.close()


def take_name(child: Child) -> None:
    """A host name that says nothing of the host."""
    name = child.told[b"hostname"]
    kernel.call("sethostname", name, len(name))


def hide(_: Child) -> None:
    """Let nothing of init be read or traced from inside."""
    kernel.call("prctl", kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_arguments(_: Child) -> None:
    """Everyone may read how a process was started, and that names paths of the host: blank it."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    ctypes.memset(start, 0, end - start)


def leave_output(_: Child) -> None:
    """Hold none of the command's descriptors."""
    null = os.open("/dev/null", os.O_RDONLY)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)


INIT: list[tuple[str, Callable[[Child], None]]] = [
    ("parent", tie_to_parent),
    ("propagation", rooting.make_private),
    ("layer", rooting.take_layers),
    ("root", rooting.build),
    ("overlay", rooting.lay_over),
    ("pivot", rooting.enter),
    ("loopback", bring_up_loopback),
    ("hostname", take_name),
]
INIT_ALONE: list[tuple[str, Callable[[Child], None]]] = [
    ("descriptors", leave_output),
    ("init", forget_arguments),
    ("init", confine.drop_bounding),
    ("init", confine.give_up_capabilities),
    ("init", confine.forbid_new_privileges),
    ("init", hide),
]


def init(child: Child) -> NoReturn:
    """Process 1: builds the root, starts the payload, and reaps."""
    child.told[b"parent"] = b"0"  # which is outside its namespace
    child.tell(b"first")
    child.go_through(INIT)
    payload_pid = os.fork()
    if payload_pid == 0:
        payload(child)
    child.go_through(INIT_ALONE)
    child.tell(b"init")
    microseconds = peak = 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            child.hear()  # never comes: kai's end of the line, or a signal, ends this
            os._exit(0)
        microseconds += int((usage.ru_utime + usage.ru_stime) * 1e6)
        peak = max(peak, usage.ru_maxrss)
        if pid == payload_pid:
            child.tell(b"ended", b"%d" % os.waitstatus_to_exitcode(status), b"%d" % microseconds, b"%d" % peak)


# ------------------------------------------------------------ the payload


def own_control_group(child: Child) -> None:
    """Once kai has put this process into its control group, see that as the root of all."""
    child.tell(b"payload")
    child.hear()
    kernel.call("unshare", kernel.NEWCGROUP)


PAYLOAD: list[tuple[str, Callable[[Child], None]]] = [
    ("cgroup", own_control_group),
    ("session", confine.start_session),
    ("keyring", confine.fresh_keyring),
    ("descriptors", confine.keep_descriptors),
    ("limits", confine.set_limits),
    ("bounding", confine.drop_bounding),
    ("securebits", confine.lock_securebits),
    ("uid", confine.take_ids),
    ("capabilities", confine.give_up_capabilities),
    ("no_new_privs", confine.forbid_new_privileges),
    ("landlock", confine.restrict_files),
    ("seccomp", confine.filter_calls),
]


def payload(child: Child, steps: list[tuple[str, Callable[[Child], None]]] = PAYLOAD) -> NoReturn:
    """The process that becomes the command, when kai has seen that it may."""
    child.go_through(steps)
    child.tell(b"ready", child.told.get(b"landlock", b"0"))
    if child.hear() != [b"run"]:
        os._exit(1)
    os.umask(0o022)
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    parts = child.several(b"environ")
    environ = dict(zip(parts[::2], parts[1::2], strict=True))
    argv = child.several(b"argv")
    code, why = NOT_FOUND, "not found"
    for path in _candidates(argv[0], environ):
        try:
            _become(path, argv, environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            code, why = NOT_RUNNABLE, os.strerror(error.errno or 0)
            break
    kernel.say(2, b"kai: cannot run " + argv[0] + b": " + why.encode() + b"\n")
    os._exit(code)


def _candidates(name: bytes, environ: dict[bytes, bytes]) -> list[bytes]:
    if b"/" in name:
        return [name]
    return [directory + b"/" + name for directory in environ[b"PATH"].split(b":") if directory]


def _become(path: bytes, argv: list[bytes], environ: dict[bytes, bytes]) -> None:
    try:
        os.execve(path, argv, environ)  # noqa: S606 - argv as it was given, and no shell
    except OSError as error:
        if error.errno != _NO_FORMAT:  # a script that does not name its interpreter, which a shell runs
            raise
        os.execve(b"/bin/sh", [b"sh", path, *argv[1:]], environ)  # noqa: S606 - as above
