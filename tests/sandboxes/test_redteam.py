"""Programs that try to break out of a sandbox, run as root and as an ordinary user, in every kind that is here.

What each attempt is after stands in its file in `redteam/attempts`. It says itself when it won; and what it could do
to the machine is looked at from outside, after it: files, sockets that listen, processes that wait for a signal. The
same attempts, run bare, win.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from kaivc.sandboxes import KINDS
from tests.conftest import IN_CI, Ids

ROOT = Path(__file__).resolve().parents[2]
RAID = Path(__file__).with_name("redteam")
PYTHON = "/usr/bin/python3"
SECRET = "the secret that nobody inside may read"
ALONE = Ids(*[62_000 + os.getpid() % 2_000] * 2)  # processes are counted by user, and others are nobody's
DRIVER = [PYTHON, "-S", "-s", "-E", "-B", "attempts/driver.py"]
ATTEMPTS = sorted(it.stem for it in (RAID / "attempts").glob("*_*.py"))


# What a kind does not promise to hold, in the words of docs/design/isolation.md.
NOT_PROMISED: dict[str, dict[str, str]] = {
    "native": {},
    "bubblewrap": {
        "devices_touch": "the time of the machine's `/dev/null` can be set",
        "proc_mountinfo": "the table of mounts tells where on the machine the layer lies",
    },
    "landlock": {
        "devices_touch": "the time of the machine's `/dev/null` can be set",
        "files_names": "that a name exists, its size and dates can be asked",
        "uts_name": "the machine's can be read",
    },
}

# Bare, they win; or what they do is seen outside.
WIN_BARE: dict[str, str] = {
    "root": """
        files_secret files_shadow files_names files_usr files_watch files_flags
        files_hardlink overlay_whiteout overlay_rename_whiteout devices_make environ_inherited environ_of_others
        descriptors_inherited ptrace_kai ptrace_memory others_tune mounts_new_calls privileges_no_new
        setuid_ids setuid_bits namespaces_setns keyring_keys sockets_raw sockets_netlink
        ipc_shared_memory kernel_modules
    """,
    "ordinary": """
        files_secret files_names files_listing files_symlink files_o_path files_dotdot
        files_tmp files_watch files_handles environ_inherited environ_of_others descriptors_inherited
        proc_root proc_others ptrace_kai ptrace_child ptrace_memory signals_kai
        signals_pidfd others_tune namespaces_unshare namespaces_clone namespaces_clone3 setuid_programs
        setuid_bits setuid_memfd kernel_personality kernel_modules keyring_keys ipc_dev_shm
        ipc_shared_memory uts_name sockets_families sockets_netlink sockets_raw privileges_no_new
        terminal_ioctl
    """,
}
SEEN_BARE = ["files_leave_in_tmp", "files_mmap_write", "files_link_then_write", "sockets_loopback"]
SEEN_BARE += ["sockets_datagram", "sockets_abstract", "sockets_path", "signals_io"]


class Hog:
    """A program that takes too much, and how it is known that it did not get it."""

    def __init__(self, held: Callable[[dict[str, Any]], bool], **limits: float) -> None:
        self.held, self.limits = held, limits


def by(*ends: str) -> Callable[[dict[str, Any]], bool]:
    return lambda job: job["by"] in ends


def ends_short(job: dict[str, Any]) -> bool:
    """It was killed for it, or was told that there is no more; and never had it all."""
    return "HAD IT ALL" not in job["output"] and (job["by"] in ("memory", "written") or job["exit_code"] != 0)


def is_told(job: dict[str, Any]) -> bool:
    """What it left running is counted; that nothing of it runs is seen by all of the processes."""
    return job["by"] == "itself" and job["left"] >= 1


# A disk's limit is held where what is hidden from names is found: killed for it, not told by chance of an error.
HOGS = {
    "processes_bomb": Hog(lambda job: 5 <= int(job["output"].split()[1]) <= 32 and is_told(job)),
    "processes_chain": Hog(lambda job: is_told(job) or "BlockingIOError" in job["output"]),  # or held by the limit
    "processes_daemon": Hog(is_told),
    "processes_stopped": Hog(is_told),
    "time_deaf": Hog(lambda job: job["by"] == "time" and job["seconds"] < 10, seconds=0.7),
    "memory_one": Hog(ends_short),
    "memory_many": Hog(lambda job: "HAD IT ALL" not in job["output"]),
    "memory_memfd": Hog(ends_short),
    "memory_sysv": Hog(ends_short),
    "memory_tmpfs": Hog(lambda job: job["by"] in ("memory", "written") or int(job["output"].split()[1]) <= 128 << 20),
    "disk_many": Hog(by("written")),
    "disk_mmap": Hog(by("written")),
    "disk_unlinked": Hog(by("written")),
    "disk_mapped": Hog(by("written")),
    "disk_in_flight": Hog(by("written")),
    "disk_deep": Hog(by("inodes", "written")),
    "disk_sparse": Hog(lambda job: job["output"].count("HAD NOT") == 3 and "HAD IT ALL" not in job["output"]),
    "disk_inodes": Hog(by("inodes")),
    "output_flood": Hog(lambda job: job["by"] == "output" and len(job["output"]) <= 1 << 20),
}


class Canaries:
    """What the attempts are after, and what is seen of it from outside."""

    def __init__(self, user: str) -> None:
        self.ids = None if user == "root" else ALONE
        self._stack = ExitStack()
        self.mark = f"redteam-{os.getpid()}-{user}-{time.monotonic_ns()}"
        self.place = Path(tempfile.mkdtemp(prefix="kai-redteam-"))
        self._stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        self.place.chmod(0o755)
        self.secret = self.place / "secret"
        in_tmp, in_shm = Path(tempfile.gettempdir()) / self.mark, Path("/dev/shm") / self.mark
        for path in (self.secret, in_tmp, in_shm):
            path.write_text(SECRET)
            path.chmod(0o644)
            self._stack.callback(path.unlink, missing_ok=True)
            if self.ids is not None:
                os.chown(path, self.ids.uid, self.ids.gid)
        self._listen()
        self._share()
        # They wait for a signal; whoever sends one ends them.
        who = {} if self.ids is None else {"user": self.ids.uid, "group": self.ids.gid, "extra_groups": []}
        self.sleeper = f"{600 + os.getpid() % 1000}.{time.monotonic_ns() % 10**6}"
        environ = {"PATH": os.environ["PATH"], "KAI_SECRET": SECRET}
        self.victims = [subprocess.Popen(["sleep", self.sleeper], env=environ, **who) for _ in range(2)]  # type: ignore[call-overload]
        self._stack.callback(lambda: [(it.kill(), it.wait()) for it in self.victims])
        self.null = os.stat("/dev/null").st_mtime_ns

    def _listen(self) -> None:
        self.heard: list[str] = []
        inet = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        six = self._stack.enter_context(socket.socket(socket.AF_INET6))
        with suppress(OSError):
            six.bind(("::1", inet.getsockname()[1]))
            six.listen()
        udp = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        abstract, path = (self._stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        abstract.bind("\0" + self.mark)
        path.bind(str(self.place / "socket"))
        (self.place / "socket").chmod(0o777)
        for it in (abstract, path):
            it.listen()
        self._sockets = {"loopback": inet, "loopback 6": six, "datagram": udp, "abstract": abstract, "path": path}

    def _share(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.shm_key = 0x6B000000 + os.getpid() % 65536 * 8 + (0 if self.ids is None else 1)
        found = libc.shmget(self.shm_key, 4096, 0o1666)
        assert found >= 0, os.strerror(ctypes.get_errno())
        self._stack.callback(libc.shmctl, found, 0, None)

    @property
    def targets(self) -> dict[str, Any]:
        return {
            "secret": str(self.secret),
            "place": str(self.place),
            "lower": str(self.place),
            "in_tmp": str(Path(tempfile.gettempdir()) / self.mark),
            "in_shm": self.mark,
            "mark": self.mark + "-left",
            "variable": SECRET,
            "pids": [it.pid for it in self.victims],
            "sleeper": self.sleeper,
            "port": self._sockets["loopback"].getsockname()[1],
            "udp": self._sockets["datagram"].getsockname()[1],
            "abstract": self.mark,
            "socket": str(self.place / "socket"),
            "shm_key": self.shm_key,
            "host": os.uname().nodename,
        }

    def seen(self) -> dict[str, bool]:
        """What happened outside: every one is a guard that broke."""
        ready = select.select(list(self._sockets.values()), [], [], 0)[0]
        seen = {f"{name}: somebody came": it in ready for name, it in self._sockets.items()}
        left = [Path(it) / (self.mark + "-left") for it in ("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock")]
        seen["a file was left"] = any(it.exists() for it in left)
        for it in left:
            it.unlink(missing_ok=True)
        seen["a signal came"] = any(it.poll() is not None for it in self.victims)
        status = self.secret.stat()
        seen["the secret changed"] = self.secret.read_text() != SECRET or status.st_nlink != 1
        return seen

    def program(self, readable: Path, kind: str, place: Path, document: dict[str, Any]) -> subprocess.Popen[str]:
        """The raid, at work."""
        if self.ids is not None:
            os.chown(place, self.ids.uid, self.ids.gid)
        who = {} if self.ids is None else {"user": self.ids.uid, "group": self.ids.gid, "extra_groups": []}
        environ = {"PYTHONPATH": str(readable), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
        interpreter = sys.executable if self.ids is None else PYTHON
        return subprocess.Popen(  # type: ignore[call-overload]
            [interpreter, readable / "redteam/raid.py", kind, place, json.dumps(document)],
            env=environ | {"KAI_SECRET": SECRET},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **who,
        )

    def close(self) -> None:
        self._stack.close()


# ---------------------------------------------------------------- who, where and in what


@pytest.fixture(scope="module", params=["root", "ordinary"])
def user(request: pytest.FixtureRequest) -> str:
    if os.geteuid() != 0:
        if IN_CI:
            pytest.fail("the attempts are made as root and as an ordinary user: run this as root")
        pytest.skip("only root can be both users")
    return str(request.param)


@pytest.fixture(scope="module")
def readable() -> Iterator[Path]:
    """The package and the attempts, where every uid can read them."""
    here = Path(tempfile.mkdtemp(prefix="kai-redteam-code-"))
    for source in (ROOT / "kaivc", RAID):
        shutil.copytree(source, here / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["chmod", "-R", "a+rX", here], check=True)
    yield here
    shutil.rmtree(here)


@pytest.fixture(scope="module")
def canaries(user: str) -> Iterator[Canaries]:
    found = Canaries(user)
    yield found
    found.close()


def alone(run: Callable[..., Any]) -> Callable[..., Any]:
    """One raid at a time on the machine: what is left running of one must not be taken for another's."""

    @functools.wraps(run)
    def call(*args: Any, **words: Any) -> Any:
        with open(Path(tempfile.gettempdir(), "kai-redteam.lock"), "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            return run(*args, **words)

    return call


@pytest.fixture(scope="module", params=KINDS)
@alone
def raid(request: pytest.FixtureRequest, canaries: Canaries, readable: Path, user: str) -> dict[str, Any]:
    """Every attempt, made in one kind of sandbox as one user; and what was seen afterwards."""
    kind = request.param
    place = canaries.place / kind
    place.mkdir()
    jobs: dict[str, Any] = {"attempts": {"argv": DRIVER}}
    for name, hog in HOGS.items():
        argv = [PYTHON, "-S", "-B", f"hogs/{name}.py"]
        jobs[name] = {"argv": argv, "limits": hog.limits, "deep": name == "disk_deep"}
    program = canaries.program(readable, kind, place, {"targets": canaries.targets, "jobs": jobs})
    said, problems = program.communicate(timeout=300)
    assert program.returncode == 0, problems
    found: dict[str, Any] = json.loads(said)
    assert [job["error"] for job in found["jobs"].values() if "error" in job] == []
    if found["ability"]["level"] is None:
        text = f"{kind} cannot be had here: {found['ability']['why']}"
        pytest.fail(text) if kind == "native" or IN_CI else pytest.skip(text)
    outside = canaries.seen()
    lines = [json.loads(line) for line in found["jobs"]["attempts"]["output"].splitlines()]
    return {
        "kind": kind,
        "user": user,
        "said": {it["name"]: it for it in lines},
        "outside": outside,
        "left": running(canaries.place),
        **found,
    }


def running(place: Path) -> list[bytes]:
    """The processes that have to do with a directory, or are a raid's."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            line = Path(f"/proc/{name}/cmdline").read_bytes()
            words = line.split(b"\0")  # whole ones: a shell of somebody else's may well speak of them
            if str(place).encode() in line or any(it == b"attempts/driver.py" or it[:5] == b"hogs/" for it in words):
                found.append(name.encode() + b" " + line)
    return found


# ---------------------------------------------------------------- attempts


def test_no_attempt_wins(raid: dict[str, Any]) -> None:
    """Each says that it was held, or left it to us to see; none is left out, and none is broken."""
    not_promised = NOT_PROMISED[raid["kind"]]
    whole = raid["jobs"]["attempts"]
    assert (whole["by"], whole["exit_code"]) == ("itself", 0), "who makes the attempts was stopped"
    assert sorted(raid["said"]) == ATTEMPTS
    bad = {}
    for name, it in raid["said"].items():
        held = it["said"].startswith(("HELD", "DONE")) or it["code"] == -signal.SIGSYS
        if not held and name not in not_promised:
            bad[name] = it["said"]
    assert bad == {}
    won = [name for name, it in raid["said"].items() if it["said"].startswith("WON")]
    print(f"{raid['kind']}, {raid['user']}: {len(ATTEMPTS)} attempts, {len(won)} won, none of them promised: {won}")
    assert raid["kind"] != "native" or won == []


def test_nothing_is_to_be_seen_outside(raid: dict[str, Any]) -> None:
    assert [what for what, so in raid["outside"].items() if so] == []
    assert raid["left"] == []
    assert not any(SECRET in job["output"] for job in raid["jobs"].values())


def test_the_version_is_as_before_and_the_layer_forges_nothing(raid: dict[str, Any]) -> None:
    jobs = raid["jobs"]
    assert {name for name, job in jobs.items() if not job["lower_same"]} == set()
    assert {name for name, job in jobs.items() if not job["mounts_same"]} == set()
    if jobs["attempts"]["is_overlay"]:  # a copy is read without regard to what an overlay would make of it
        assert jobs["attempts"]["marks"] == []


@alone
def test_the_attempts_win_where_nothing_holds_them(canaries: Canaries, readable: Path, user: str) -> None:
    """The same programs, bare: so it is the sandbox that holds them."""
    place = canaries.place / "bare"
    place.mkdir()
    place.chmod(0o755)
    control = Canaries(user)  # these will be hit
    try:
        document = {"targets": control.targets, "names": [*WIN_BARE[user].split(), *SEEN_BARE]}
        program = control.program(readable, "bare", place, document)
        said, problems = program.communicate(timeout=100)
        assert program.returncode == 0, problems
        found = json.loads(said)
        lines = {it["name"]: it["said"] for it in map(json.loads, found["output"].splitlines())}
        assert {name: lines[name] for name in WIN_BARE[user].split() if not lines[name].startswith("WON")} == {}
        assert not found["lower_same"]
        seen = control.seen()
        expected = {"loopback: somebody came", "datagram: somebody came", "abstract: somebody came"}
        expected |= {"path: somebody came", "a file was left", "a signal came"}
        assert expected - {what for what, so in seen.items() if so} == set()
        assert SECRET in found["output"]
    finally:
        control.close()


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_what_is_not_promised_is_said(kind: str) -> None:
    text = " ".join((ROOT / "docs/design/isolation.md").read_text().split())
    assert {name: said for name, said in NOT_PROMISED[kind].items() if said not in text} == {}


# ---------------------------------------------------------------- limits


def test_a_hog_gets_no_more_than_its_limits(raid: dict[str, Any]) -> None:
    bad = {}
    for name, hog in HOGS.items():
        job = raid["jobs"][name]
        assert "error" not in job, job
        if not hog.held(job):
            bad[name] = {key: job[key] for key in ("by", "exit_code", "left", "seconds", "taken")} | {
                "output": job["output"][-200:]
            }
    assert bad == {}


# ---------------------------------------------------------------- what is planted for a commit

PLANTS = sorted(it.stem for it in (RAID / "plants").glob("*.py"))
# What a commit keeps of them; all others are refused.
KEPT: dict[str, set[str]] = {
    "closed": {"closed/inner/x"},
    "git_hooks": set(),  # left out, as always
    "kai_directory": set(),
    "import_hooks": {"evil.pth", "sitecustomize.py", "usercustomize.py", "site-packages/x.pth"},  # merely data
    "names_with_escapes": {"\x1b]0;owned\x07", "\x1b[2Jred", "a\nb", "-rf", "tab\there", "\u202egnp.exe"},
    "manifest_loosened": {"kai.yaml"},  # which is refused when it is to be obeyed
    "overlay_marks": {"d/new"},
}


@pytest.fixture(scope="module", params=KINDS)
@alone
def planted(request: pytest.FixtureRequest, user: str, readable: Path, public_python: list[str]) -> dict[str, Any]:
    kind = request.param
    base = tempfile.mkdtemp(prefix="kai-redteam-plants-")
    request.addfinalizer(lambda: shutil.rmtree(base))  # noqa: PT021 - whatever fails before a yield
    if user == "ordinary":
        os.chown(base, 65534, 65534)
    else:
        os.chmod(base, 0o755)
    who: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if user == "ordinary" else {}
    done = subprocess.run(
        [*public_python, str(readable / "redteam/keep.py"), kind, base, *PLANTS],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        cwd="/",
        **who,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if found["ability"] is None:
        pytest.fail(kind) if kind == "native" or IN_CI else pytest.skip(kind)
    return {"kind": kind, "user": user, "left": running(Path(base)), **found}


def test_a_commit_keeps_nothing_that_was_planted_but_data(planted: dict[str, Any]) -> None:
    bad = {}
    for name in PLANTS:
        it = planted[name]
        if name in KEPT:
            kept = it.get("commit") is not None and {path for path, how in it["changes"].items() if how != "D"}
            right = kept == KEPT[name]
        else:
            right = it.get("commit") is None and bool(it.get("problem") or it.get("refusals"))
        if not right:
            bad[name] = {key: str(value)[:500] for key, value in it.items()}
    assert bad == {}
    print(f"{planted['kind']}, {planted['user']}: {len(PLANTS)} planters, {len(KEPT)} of them kept as data or left out")


def test_what_is_planted_is_refused_for_what_it_is(planted: dict[str, Any]) -> None:
    """A planter that failed by itself would prove nothing."""
    own_ends = {name: it["status"] for name, it in planted.items() if name in PLANTS and it["status"] != "passed"}
    assert own_ends == {}


def test_a_manifest_that_was_planted_loosens_nothing(planted: dict[str, Any]) -> None:
    assert "KAI_SECRET" not in planted["loosened"].partition("loosens")[0]
    assert planted["loosened"].startswith("kai.yaml"), planted["loosened"]


def test_planters_leave_nothing_behind(planted: dict[str, Any]) -> None:
    assert (planted["scratch"], planted["left"], planted["below"], planted["fsck"]) == ([], [], "seen\n", True)
    assert max(planted[name]["seconds"] for name in PLANTS) < 30
    assert not Path("/tmp/redteam-hook").exists()


# ---------------------------------------------------------------- a real terminal

TYPE = """
import fcntl, os, sys
for path in ("/dev/tty", "/dev/pts/0", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", sys.argv[1]):
    try: fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    except OSError: continue
    for fd in (0, 1, 2, fd):
        for letter in b"echo INJECTED":
            try: fcntl.ioctl(fd, 0x5412, bytes([letter]))
            except OSError: pass
        try: fcntl.ioctl(fd, 0x541C, bytes([2, 0]))
        except OSError: pass
os.write(1, b"\\x1b]0;owned\\x07\\x1b[2J\\x1b[6n\\x9b5n red\\x1b[31m\\r\\n")
for name in ("\\x1b]0;owned\\x07", "\\x1b[31mred"):
    open(name, "w").close()
"""
READER = """
import os, select, subprocess, sys, termios
subprocess.run(sys.argv[1:])
fd = os.open("/dev/tty", os.O_RDWR)
mode = termios.tcgetattr(fd); mode[3] &= ~termios.ICANON; termios.tcsetattr(fd, termios.TCSANOW, mode)
typed = os.read(fd, 1000) if select.select([fd], [], [], 0.2)[0] else b""
print("TYPED", typed)
"""


def on_a_terminal(argv: list[str], cwd: Path) -> bytes:
    """What a terminal of its own shows when a command has it as its controlling one."""
    import pty  # the rest needs none

    pid, master = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        os.execv(sys.executable, [sys.executable, "-c", READER, *argv])  # noqa: S606
    shown, end = b"", time.monotonic() + 60
    try:
        while time.monotonic() < end:
            piece = os.read(master, 65536)
            if not piece:
                break
            shown += piece
    except OSError:  # the last of it is closed
        pass
    finally:
        os.close(master)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return shown


def test_nobody_types_into_the_users_terminal_or_writes_codes_to_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("run this as root") if IN_CI else pytest.skip("a kernel lets only root type into terminals")
    kai = [sys.executable, "-m", "kaivc"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "KAI_AUTHOR": "Ann Example <ann@example.org>"}
    home = tmp_path / "agents"
    for words in (["init", str(home)], ["new", "bot"]):
        cwd = home if home.exists() else tmp_path
        subprocess.run([*kai, *words], cwd=cwd, env=environ, check=True, capture_output=True, timeout=60)
    (home / "bot/workspace/type.py").write_text(TYPE)
    subprocess.run([*kai, "commit", "bot"], cwd=home, env=environ, check=True, capture_output=True, timeout=60)
    (home / ".kai/config.yaml").write_text(f"isolation: {{temp_dir: {tmp_path}/temp}}\n")
    variables = ["env", f"PYTHONPATH={ROOT}", "TERM=xterm-256color", *kai]
    command = ["snapshot", "bot", "--test", "current", "--", PYTHON, "type.py", "/dev/pts/1"]
    shown = on_a_terminal([*variables, *command], home)
    assert b"TYPED b''" in shown, shown
    assert b"passed" in shown, shown
    for code in (b"\x1b]0;", b"\x1b[2J", b"\x1b[6n", b"\x9b5n", b"\x07", b"\x1b[31mred"):
        assert code not in shown, shown
    # The same, with kai's terminal and nothing between: the terminal is typed into, and takes the codes.
    (tmp_path / "bare").mkdir()
    bare = on_a_terminal([PYTHON, str(home / "bot/workspace/type.py"), "/dev/null"], tmp_path / "bare")
    assert b"INJECTED" in bare.partition(b"TYPED")[2], bare
    assert b"\x1b]0;owned\x07" in bare


# ---------------------------------------------------------------- what it costs

COST = """
import os, resource, sys, time
sys.path.insert(0, sys.argv[1])
from kaivc.sandboxes.native import Native
from kaivc.sandboxes.base import Job, Limits
os.kill = lambda *_: None  # the first process ends by itself, and what it waited for is counted
lower, layer, rounds = sys.argv[2], sys.argv[3], int(sys.argv[4])
limits = Limits(memory=1 << 30, processes=64, open_files=256, written=1 << 30, inodes=10000, output=4 << 20, seconds=60)
def cpu():
    both = [resource.getrusage(it) for it in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(it.ru_utime + it.ru_stime for it in both)
def bare():
    words = "cat {0}/f*; head -c 65536 {0}/state.db".format(lower)
    null = [(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", words], {"PATH": "/usr/bin:/bin"}, file_actions=null)
    os.waitpid(pid, 0)
def inside():
    os.mkdir(layer, 0o700)
    ended = Native().run(Job(("sh", "-c", "cat f*; head -c 65536 state.db"), {}, lower, layer, limits), lambda _: None)
    assert ended.exit_code == 0
    import shutil; shutil.rmtree(layer)
inside(); bare()
more = []
for _ in range(rounds):
    began = cpu(); bare(); middle = cpu(); inside(); more.append((cpu() - middle) - (middle - began))
print(sorted(more)[len(more) // 2])
"""


def cost(tmp_path: Path, name: str, size: int, *, real: bool = False) -> float:
    """The CPU seconds that a sandbox takes more than the bare command, the median of paired runs.

    There are 12 files, which are read, and a state of ``size`` bytes.
    """
    lower = tmp_path / name
    lower.mkdir()
    for number in range(12):
        (lower / f"f{number}").write_text("of an agent\n" * 100)
    with (lower / "state.db").open("wb") as file:
        if real:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        file.truncate(size)
    try:
        argv = [sys.executable, "-c", COST, str(ROOT), str(lower), str(tmp_path / f"{name}-layer"), "7"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)
    finally:
        shutil.rmtree(lower)


def test_a_sandbox_costs_little_and_no_more_for_a_large_state(tmp_path: Path) -> None:
    """The goal is 150 ms of CPU; the bound leaves room for a machine that is busy."""
    small = cost(tmp_path, "small", 1 << 20)
    sparse = cost(tmp_path, "sparse", 500 << 20)
    large = cost(tmp_path, "large", 128 << 20, real=True)
    print(f"CPU of a native sandbox over the bare command: {small * 1000:.0f} ms with a state of 1 MB, ", end="")
    print(f"{sparse * 1000:.0f} ms with 500 MB sparse, {large * 1000:.0f} ms with 128 MB written")
    assert small < 0.3
    assert max(sparse, large) < small + 0.1
