"""Bubblewrap's and Landlock's guards, each left out in turn: E103 names it, and the command never runs."""

import fcntl
import mmap
import os
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kaivc.errors import IsolationFailed
from kaivc.records import replace
from kaivc.sandboxes import bubblewrap, bwrap, cgroups, child, copies, kernel, landlock, looking, native, seccomp, uids
from kaivc.sandboxes.base import Job, Limits
from tests.conftest import IN_CI, Ids, require_tool, run_as

LIMITS = Limits(memory=256 << 20, processes=32, open_files=128, written=1 << 20, inodes=100, output=1 << 16, seconds=10)


@pytest.fixture(autouse=True)
def as_root() -> None:
    """The suite that every kind passes is run as another uid too; here the guards of root are among them."""
    if os.geteuid() != 0:
        pytest.fail("run this as root") if IN_CI else pytest.skip("root's guards are among these")


@pytest.fixture
def job(public_tmp: Path) -> Job:
    (public_tmp / "lower").mkdir()
    (public_tmp / "lower/a").write_text("x")
    (public_tmp / "layer").mkdir(mode=0o700)
    argv = ("/bin/sh", "-c", "echo it ran; : > it-ran")
    return Job(argv, {}, str(public_tmp / "lower"), str(public_tmp / "layer"), LIMITS)


def refused(sandbox: Any, job: Job) -> str:
    """The guard that is in doubt; nothing of the command is to be seen."""
    said: list[bytes] = []
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsolationFailed) as caught:
        sandbox.run(job, said.append)
    assert said == []
    assert not [name for _, _, names in os.walk(job.layer) for name in names if name == "it-ran"]
    assert len(os.listdir("/proc/self/fd")) == fds
    assert caught.value.unchanged == "the command has not run"
    return str(caught.value.facts["guard"])


def test_with_all_guards_it_runs(job: Job) -> None:
    require_tool("bwrap")
    said: list[bytes] = []
    assert bubblewrap.Bubblewrap().run(job, said.append).exit_code == 0
    assert said == [b"it ran\n"]


# ---------------------------------------------------------------- bubblewrap


@pytest.mark.parametrize("name", [it for it in bwrap.APART if it != "user"])  # bwrap makes that one unasked
def test_bubblewrap_without_a_namespace(job: Job, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    require_tool("bwrap")
    monkeypatch.setattr(bwrap, "APART", tuple(it for it in bwrap.APART if it != name))
    words = bwrap.plan

    def without_host_name(*args: Any, **more: Any) -> Any:
        plan = words(*args, **more)
        if name == "uts":  # bwrap itself refuses a host name without it
            at = plan.words.index("--hostname")
            del plan.words[at : at + 2]
        return plan

    monkeypatch.setattr(bwrap, "plan", without_host_name)
    # Without a pid namespace there is no process 1 to be found, nor a /proc of its own to be mounted.
    assert refused(bubblewrap.Bubblewrap(), job) in ({"namespaces", "bwrap"} if name == "pid" else {"namespaces"})


def left_out(*words: str) -> Callable[[list[str]], None]:
    def change(all_: list[str]) -> None:
        at = next(it for it in range(len(all_)) if all_[it : it + len(words)] == list(words))
        extra = {"--ro-bind": 3, "--seccomp": 2, "--chdir": 2, "--remount-ro": 2}[words[0]]
        del all_[at : at + extra]

    return change


def added(*words: str) -> Callable[[list[str]], None]:
    def change(all_: list[str]) -> None:
        at = all_.index("--remount-ro")  # the root, into which nothing comes afterwards
        all_[at:at] = words

    return change


def cover(all_: list[str]) -> None:
    del all_[all_.index("/proc/1") - 2 : all_.index("/proc/1") + 1]


WRONG: dict[str, tuple[Callable[[list[str]], Any], str]] = {
    "no filter": (left_out("--seccomp"), "seccomp"),
    "process 1 open": (cover, "mounts"),
    "a root that can be written": (left_out("--remount-ro", "/"), "mounts"),
    "starts elsewhere": (left_out("--chdir"), "mounts"),
    "a directory of the machine's": (added("--ro-bind", "/etc", "/srv/etc"), "mounts"),
    "programs that can be written": (added("--bind", "/usr", "/usr"), "mounts"),
    "another copy": (added("--tmpfs", "/agent"), "mounts"),
    "devices": (added("--dev", "/srv"), "mounts"),
    "capabilities": (added("--cap-add", "CAP_SYS_ADMIN"), "capabilities"),
    "another id": (added("--uid", "7"), "ids"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bubblewrap_with_other_words(job: Job, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    require_tool("bwrap")
    change, guard = WRONG[wrong]
    plan = bwrap.plan

    def other(*args: Any, **more: Any) -> Any:
        it = plan(*args, **more)
        change(it.words)
        return it

    monkeypatch.setattr(bwrap, "plan", other)
    assert refused(bubblewrap.Bubblewrap(), job) == guard


def test_bubblewrap_as_root_of_the_machine(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    require_tool("bwrap")
    monkeypatch.setattr(uids, "unused", lambda: 0)
    assert refused(bubblewrap.Bubblewrap(), job) == "uid"


def test_bubblewrap_without_limits(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    require_tool("bwrap")
    monkeypatch.setattr(bubblewrap, "_set_limits", lambda *_: None)
    assert refused(bubblewrap.Bubblewrap(), job) == "limits"


def test_bubblewrap_with_a_descriptor_more(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    require_tool("bwrap")
    plan = bwrap.plan

    def other(*args: Any, **more: Any) -> Any:
        it = plan(*args, **more)
        it.fds.append(os.open("/", os.O_RDONLY))
        return it

    monkeypatch.setattr(bwrap, "plan", other)
    assert refused(bubblewrap.Bubblewrap(), job) == "descriptors"


def test_bubblewrap_that_others_can_write_is_not_run(job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\nexit 0\n")
    fake.chmod(0o777)
    monkeypatch.setattr(bubblewrap, "_DIRECTORIES", (str(tmp_path),))
    assert refused(bubblewrap.Bubblewrap(), job) == "bwrap"
    assert bubblewrap.Bubblewrap().ability().level is None
    fake.unlink()
    assert "not installed" in bubblewrap.Bubblewrap().ability().why


# ---------------------------------------------------------------- landlock

SPOILT: dict[str, tuple[dict[str, Any], str]] = {
    "as root": ({"privileged": 0}, "uid"),
    "without limits": ({"limits": []}, "limits"),
    "started elsewhere": ({"start": "/"}, "start"),
    "all can be read": ({"trees": [b"/"]}, "landlock"),
    "no filter": ({"seccomp": b""}, "seccomp"),
}


@pytest.mark.parametrize("wrong", SPOILT)
def test_landlock_spoilt(job: Job, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    values, guard = SPOILT[wrong]
    config = landlock._Kept._config
    monkeypatch.setattr(landlock._Kept, "_config", lambda *args: config(*args) | values)
    assert refused(landlock.Landlock(), job) == guard


def test_landlock_shows_a_version_to_no_other_user(job: Job, public_tmp: Path, other_uid: Ids) -> None:
    """As root the copy lies where the command's uid can reach it; others who know the path cannot."""
    looked: list[str] = []

    def look(_: bytes) -> None:
        (box,) = public_tmp.glob("kai-landlock-*/box/tree/a")
        looked.append(run_as(other_uid, ["cat", box], cwd="/").stderr)

    argv = ("/bin/sh", "-c", "cat a; read never < a; sleep 0.5")
    assert landlock.Landlock().run(replace(job, argv=argv), look).exit_code == 0
    assert "Permission denied" in looked[0]


KEEPER_FAULTS = [
    *(f"name == '{name}'" for name in ("setgroups", "setresuid", "setresgid", "keyctl", "prlimit64", "capset")),
    *(f"name == 'landlock_{name}'" for name in ("create_ruleset", "add_rule", "restrict_self")),
    *(f"name == 'landlock_add_rule' and seen == {number}" for number in (2, 9, 20)),
    *(f"name == 'prctl' and a[0] == {option}" for option in (24, 28, 36, 38, 47)),
    "name == 'landlock_create_ruleset' and seen == 2",
    "name == 'prlimit64' and seen == 4",
    "name == 'seccomp'",
]
INJECT = """from kaivc.sandboxes import kernel
call, counts = kernel.call, {{}}
def failing(name, *a):
    seen = counts[name] = counts.get(name, 0) + 1
    if {when}:
        raise OSError(5, "injected", name)
    return call(name, *a)
kernel.call = failing
"""


@pytest.mark.parametrize("when", KEEPER_FAULTS)
def test_landlock_whose_child_has_a_call_fail(job: Job, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    begin = '__import__("kaivc.sandboxes."'
    assert begin in child.BOOT
    monkeypatch.setattr(child, "BOOT", child.BOOT.replace(begin, INJECT.format(when=when) + begin))
    refused(landlock.Landlock(), job)


# ---------------------------------------------------------------- both

KINDS = [bubblewrap.Bubblewrap, landlock.Landlock]
CALLS: list[tuple[Any, str]] = [
    *((kernel, name) for name in ("make_dir", "make_file", "set_mode", "give", "call")),
    *((os, name) for name in ("pipe2", "pidfd_open", "kill", "posix_spawn", "setgroups", "setresgid", "setresuid")),
    *((copies, name) for name in ("copy", "stamps")),
    (resource, "prlimit"),
    (fcntl, "fcntl"),
    (cgroups.Group, "take"),
    (subprocess, "Popen"),
]
"""What kai calls as it sets a sandbox up, some of it in the child that becomes bwrap."""


class Fault:
    """Lets one call of a function fail: this process's, or that of one that it forked."""

    def __init__(self, owner: Any, name: str, at: int) -> None:
        self.real, self.owner, self.name, self.at = getattr(owner, name), owner, name, at
        self.seen = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the child

    def __call__(self, *args: Any, **more: Any) -> Any:
        if not self.is_spared(args):
            self.seen[0] += 1
            if self.seen[0] == self.at:
                raise OSError(5, "injected")
        return self.real(*args, **more)

    def is_spared(self, args: tuple[Any, ...]) -> bool:
        """What a sandbox can do without: a control group, a keyring where the filter lets none be reached, tidiness."""
        if self.name == "kill":
            return args[1] != signal.SIGSTOP
        if self.name == "call":
            return args[0] == "keyctl"
        if self.name == "set_mode" and "/overlay/" in args[0]:
            return True
        return str(args[0]).startswith("/sys/fs/cgroup")

    @property
    def happened(self) -> bool:
        return self.seen[0] >= self.at


@pytest.mark.parametrize("kind", [*KINDS, native.Native])
def test_each_call_of_the_set_up_that_fails(kind: Any, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind is bubblewrap.Bubblewrap:
        require_tool("bwrap")
    happened: Counter[str] = Counter()
    for owner, name in CALLS:
        if kind is native.Native and owner is kernel and name == "call":
            continue  # where it cannot lend a version's files it copies them
        for at in range(1, 100):
            fault = Fault(owner, name, at)
            fresh = replace(job, layer=f"{job.layer}/{name}-{at}")
            os.mkdir(fresh.layer, 0o700)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, lambda *args, fault=fault, **more: fault(*args, **more))
                if not at_fault(kind(), fresh, fault):
                    break
            happened[name] += 1
    assert happened.total() > 10, happened


def at_fault(sandbox: Any, job: Job, fault: Fault) -> bool:
    """Whether the call was made at all; then it must have been refused."""
    try:
        refused(sandbox, job)
    except pytest.fail.Exception:
        assert not fault.happened, (fault.name, fault.at)
        return False
    assert fault.happened, (fault.name, fault.at)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_outside_its_control_group(job: Job, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    if kind is bubblewrap.Bubblewrap:
        require_tool("bwrap")
    monkeypatch.setattr(cgroups.Group, "controllers", property(lambda _: frozenset({"memory"})))
    monkeypatch.setattr(cgroups.Group, "take", lambda *_: None)
    monkeypatch.setattr(cgroups.Group, "holds", lambda *_: False)
    assert refused(kind(), job) == "control group"


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_read_is_in_doubt(job: Job, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    if kind is bubblewrap.Bubblewrap:
        require_tool("bwrap")

    def status(_: int) -> dict[str, str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(looking, "status", status)
    assert refused(kind(), job) in {"uid", "groups"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_filter_for_this_machine(job: Job, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    if kind is bubblewrap.Bubblewrap:
        require_tool("bwrap")
    monkeypatch.setattr(seccomp, "ARCHES", {})
    assert refused(kind(), job) == "seccomp"
    assert kind().ability().level is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_version_that_cannot_be_copied(job: Job, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    if kind is bubblewrap.Bubblewrap:
        require_tool("bwrap")
    os.mkfifo(f"{job.lower}/pipe")
    assert refused(kind(), job) == "copy"


def test_a_copy_shares_or_copies_and_tells_what_changes(tmp_path: Path) -> None:
    lower, top = tmp_path / "lower", tmp_path / "top"
    (lower / "d").mkdir(parents=True)
    (lower / "d/one").write_bytes(b"1" * 5000)
    with (lower / "holes").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    (lower / "tool").write_bytes(b"#!")
    (lower / "tool").chmod(0o500)
    copied = copies.copy(str(lower), str(top))
    assert (top / "holes").read_bytes() == (lower / "holes").read_bytes()
    assert copied.largest == (5 << 20) + 3
    assert copied.size < 1 << 20
    assert oct((top / "tool").stat().st_mode) == "0o100755"
    before = copies.taken((str(top),), copied.stamps)
    assert (before.size, before.inodes, before.hidden) == (0, 0, False)
    with (top / "d/one").open("r+b") as file:
        file.write(b"2")
    (top / "new").write_bytes(b"n" * 10_000)
    os.link(top / "new", top / "again")
    after = copies.taken((str(top),), copied.stamps)
    assert after.inodes == 2
    assert 10_000 <= after.size <= 40_000
