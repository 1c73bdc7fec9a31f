"""The watch counts what a command writes, wherever it hides it, and nothing of what others do with the same disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kaivc.sandboxes import KINDS, looking
from kaivc.sandboxes.base import End, Job, Limits
from kaivc.sandboxes.watch import Watch
from tests.conftest import Ids, require_tool, run_as

MIB = 1 << 20
LIMITS = Limits(memory=256 << 20, processes=32, open_files=64, written=MIB, inodes=50, output=1 << 16, seconds=30)


@pytest.fixture
def started() -> Iterator[Callable[[str, Path], int]]:
    """Starts a Python program in a directory, and gives its pid when it has said that it is ready."""
    programs = []

    def start(text: str, cwd: Path) -> int:
        argv = [sys.executable, "-c", PROLOGUE + text + EPILOGUE]
        program = subprocess.Popen(argv, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        programs.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        return program.pid

    yield start
    for it in programs:
        it.kill()
        it.communicate()


PROLOGUE = """
import array, ctypes, mmap, os, socket, sys, threading, time
libc = ctypes.CDLL(None)
def file(name, size):
    fd = os.open(name, os.O_CREAT | os.O_RDWR)
    os.unlink(name)
    os.posix_fallocate(fd, 0, size)
    return fd
def pass_on(way, fd):
    way.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
def ready():
    os.write(1, b"ready\\n")
"""
EPILOGUE = """
ready()
sys.stdin.read()
"""
MAPPED = """
from ctypes import c_void_p, c_size_t, c_int, c_long
fd = file("x", 8 << 20)
libc.mmap.restype = c_void_p
assert libc.mmap(c_void_p(0), c_size_t(4096), c_int(1), c_int(1), c_int(fd), c_long(0)) not in (None, 2**64 - 1)
os.close(fd)
"""
IN_FLIGHT = """
one, other = socket.socketpair()
fd = file("x", 8 << 20)
pass_on(one, fd)
os.close(fd)
"""
HOLDERS = {
    "open": ("fd = file('x', 8 << 20)", (8 * MIB, False)),
    "temporary": ("fd = os.open('.', os.O_TMPFILE | os.O_RDWR); os.posix_fallocate(fd, 0, 8 << 20)", (8 * MIB, False)),
    "mapped": (MAPPED, (0, True)),
    "in flight": (IN_FLIGHT, (0, True)),
    "of a thread whose first one has ended": (
        """
def hold():
    fd = file("x", 8 << 20)
    threading.Event().wait(0.3)
    ready()
    threading.Event().wait(60)
threading.Thread(target=hold).start()
libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
""",
        (8 * MIB, False),
    ),
    "of a thread with descriptors of its own": (
        """
def hold():
    assert libc.unshare(0x400) == 0
    file("x", 8 << 20)
    ready()
    threading.Event().wait(60)
threading.Thread(target=hold).start()
threading.Event().wait(60)
""",
        (8 * MIB, False),
    ),
    "in memory": ("fd = os.memfd_create('x'); os.write(fd, b'x' * (8 << 20)); m = mmap.mmap(fd, 4096)", (0, False)),
    "in shared memory": (
        "fd = file('/dev/shm/kai-test-%d' % os.getpid(), 8 << 20); m = mmap.mmap(fd, 4096)",
        (0, False),
    ),
    "nothing": ("", (0, False)),
}


@pytest.mark.parametrize("what", HOLDERS)
def test_what_has_no_name_is_counted_or_known_to_be_hidden(
    what: str, started: Callable[[str, Path], int], tmp_path: Path
) -> None:
    text, expected = HOLDERS[what]
    pid = started(text, tmp_path)
    found = looking.unnamed([pid], str(tmp_path))
    assert (found.size // MIB * MIB, found.hidden) == expected
    it = looking.stat(pid)
    assert it is not None
    assert it.present


def test_memory_is_counted_of_a_process_whose_first_thread_has_ended(
    started: Callable[[str, Path], int], tmp_path: Path
) -> None:
    text = HOLDERS["of a thread whose first one has ended"][0].replace('file("x", 8 << 20)', "bytearray(64 << 20)")
    pid = started(text, tmp_path)
    assert 64 * MIB < looking.memory([pid], 1 << 30) < 128 * MIB
    assert 64 * MIB < looking.memory([pid], 0) < 128 * MIB


def test_programs_that_are_replaced_while_they_run_are_not_what_it_wrote(
    started: Callable[[str, Path], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr").mkdir()
    (tmp_path / "layer").mkdir()
    pid = started(MAPPED.replace('"x"', '"usr/x"') + "held = file('usr/y', 8 << 20)", tmp_path)
    assert looking.unnamed([pid], str(tmp_path / "layer")).hidden
    monkeypatch.setattr(looking, "_PROGRAMS", (f"{tmp_path}/usr/",))
    assert looking.unnamed([pid], str(tmp_path / "layer")) == looking.Unnamed(0, hidden=False)
    (tmp_path / "usr/layer").mkdir()
    assert looking.unnamed([pid], str(tmp_path / "usr/layer")).hidden, "there it could have written them"


def test_nobody_descends_from_no_process() -> None:
    """To the kernel, number 0 is the parent of the first process, and so of all of the machine's."""
    assert looking.family(0) == []
    assert os.getpid() in {it.pid for it in looking.family(os.getppid())}


# ---------------------------------------------------------------- others use the same disk


class Disk:
    """A file system, as `os.statvfs` tells of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free, self.slots = 1000 * MIB, 10_000
        monkeypatch.setattr(os, "statvfs", self.told)

    def told(self, _: str) -> os.statvfs_result:
        return os.statvfs_result((1, 1, 10_000 * MIB, self.free, self.free, 10**6, self.slots, self.slots, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each look at the processes is told in turn; the last again and again."""
    said = [False]
    look = lambda *_: looking.Unnamed(0, hidden=said.pop(0) if len(said) > 1 else said[0])  # noqa: E731
    monkeypatch.setattr(looking, "unnamed", look)
    return said


def test_what_others_write_is_not_the_commands(disk: Disk, hidden: list[bool], tmp_path: Path) -> None:
    watch = Watch(LIMITS, list, (str(tmp_path),), {})
    for _ in range(5):
        disk.free -= 100 * MIB
        assert watch.files() is None
    # Only what went since all was to be seen may be its own.
    hidden[:] = [True]
    assert watch.files() is None
    disk.free -= 2 * MIB
    assert watch.files() is End.WRITTEN


def test_what_is_hidden_for_a_moment_convicts_nobody(disk: Disk, hidden: list[bool], tmp_path: Path) -> None:
    watch = Watch(LIMITS, list, (str(tmp_path),), {})
    disk.free -= 100 * MIB
    hidden[:] = [True, True, True, False]
    assert watch.files() is None


def test_what_others_give_back_hides_nothing(disk: Disk, hidden: list[bool], tmp_path: Path) -> None:
    watch = Watch(LIMITS, list, (str(tmp_path),), {})
    disk.free += 500 * MIB
    assert watch.files() is None
    hidden[:] = [True]
    disk.free -= 2 * MIB
    assert watch.files() is End.WRITTEN


def test_what_is_named_first_and_hidden_then_stays_counted(disk: Disk, hidden: list[bool], tmp_path: Path) -> None:
    watch = Watch(LIMITS, list, (str(tmp_path),), {})
    (tmp_path / "x").write_bytes(b"x" * (MIB - 100_000))
    disk.free -= 100 * MIB + (tmp_path / "x").stat().st_blocks * 512
    assert watch.files() is None
    (tmp_path / "x").unlink()
    hidden[:] = [True]
    disk.free -= 200_000
    assert watch.files() is End.WRITTEN


def test_what_is_closed_is_opened_to_be_counted_when_nothing_runs_any_more(
    public_tmp: Path, public_python: list[str], other_uid: Ids
) -> None:
    """By the user whose command has closed it; and it is as before then."""
    script = """
import json, os, sys
from kaivc.sandboxes import copies
from kaivc.sandboxes.base import Limits
from kaivc.sandboxes.watch import Watch
os.makedirs("top/closed/inner/inner")
for name in ("top/a", "top/closed/b", "top/closed/inner/c", "top/closed/inner/inner/d"):
    with open(name, "wb") as file: file.write(b"x" * 8192)
dirs = ["top/closed/inner/inner", "top/closed/inner", "top/closed", "top"]
for name, mode in zip(dirs, (0, 0o400, 0o300, 0)): os.chmod(name, mode)
held = [os.open("top", os.O_PATH)]
watch = Watch(Limits(1, 1, 1, 1 << 20, 50, 1, 1), list, (os.path.abspath("top"),), {})
free = os.statvfs_result((1, 1, 1, 0, 0, 1, 0, 0, 0, 255))
os.statvfs = lambda _: free
print(*[watch.files() for _ in range(6)], watch.afterwards())
for opening in (False, True):
    it = copies.taken((os.path.abspath("top"),), {}, opening=opening)
    print(it.size // 8192, it.inodes, it.hidden)
print(oct(os.fstat(held[0]).st_mode))
os.chmod("top", 0o700); print(oct(os.stat("top/closed").st_mode))
os.chmod("top/closed", 0o700); print(oct(os.stat("top/closed/inner").st_mode))
os.chmod("top/closed/inner", 0o700); print(oct(os.stat("top/closed/inner/inner").st_mode))
"""
    os.chown(public_tmp, other_uid.uid, other_uid.gid)
    done = run_as(other_uid, [*public_python, "-c", script], cwd=public_tmp)
    assert done.returncode == 0, done.stderr
    looks, closed, opened, *modes = done.stdout.splitlines()
    assert looks == "None None None None None written None", "where it stays closed, what is gone decides"
    assert closed == "0 0 True"
    assert opened.endswith(" 7 False")
    assert int(opened.split()[0]) >= 4
    assert modes == ["0o40000", "0o40300", "0o40400", "0o40000"]


RUN = """
import json, os, sys
from kaivc.sandboxes import KINDS
from kaivc.sandboxes.base import Job, Limits
kind, base, script = sys.argv[1:4]
sandbox = KINDS[kind]()()
os.makedirs(base + "/lower"); os.mkdir(base + "/layer", 0o700)
held = []
def say(_):
    held.append(os.open(base, os.O_TMPFILE | os.O_RDWR))
    os.posix_fallocate(held[-1], 0, 1 << 20)
limits = Limits(memory=256 << 20, processes=64, open_files=64, written=0, inodes=0, output=1 << 16, seconds=30)
ended = sandbox.run(Job(("sh", "-c", script), {}, base + "/lower", base + "/layer", limits), say)
print(json.dumps([ended.by, ended.exit_code, len(held) > 5]))
"""
# Programs that take a while to end, for they have much to give back.
SHORT = "/usr/bin/python3 -S -E -c 'bytearray(40 << 20); print()'"
BUSY = f"for n in 1 2 3; do (i=0; while [ $i -lt 25 ]; do {SHORT}; i=$((i+1)); done) & done; wait"


@pytest.mark.parametrize("user", ["root", "ordinary"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_disk_convicts_nobody(
    kind: str, user: str, public_tmp: Path, public_python: list[str], other_uid: Ids
) -> None:
    """Here it is this side that fills the disk, at each word of a command that writes nothing."""
    if kind == "bubblewrap":
        require_tool("bwrap")
    base = public_tmp / "base"
    base.mkdir()
    ids = Ids(0, 0) if user == "root" else other_uid
    os.chown(base, ids.uid, ids.gid)
    done = run_as(ids, [*public_python, "-c", RUN, kind, str(base), BUSY], cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["itself", 0, True]


LATE = "(sleep 0.05; for n in 1 2 3 4 5 6 7 8; do head -c 900000 /dev/zero > f$n; done; sleep 60) & exit 0"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_when_the_command_has_ended_counts_too(kind: str, public_tmp: Path) -> None:
    """Until all that it left running is killed."""
    if kind == "bubblewrap":
        require_tool("bwrap")
    (public_tmp / "lower").mkdir()
    (public_tmp / "layer").mkdir(mode=0o700)
    job = Job(("sh", "-c", LATE), {}, str(public_tmp / "lower"), str(public_tmp / "layer"), LIMITS)
    ended = KINDS[kind]()().run(job, lambda _: None)
    assert (ended.exit_code, ended.left_running > 0) == (0, True)
    written = sum(it.stat().st_blocks * 512 for it in Path(ended.top).iterdir())
    assert (ended.by is End.WRITTEN) == (written > MIB)
