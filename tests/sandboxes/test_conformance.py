"""What every kind of sandbox must do, each tried as root and as an ordinary user."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kaivc.sandboxes import KINDS
from tests.conftest import IN_CI, Ids, require_tool

ROOT = Path(__file__).resolve().parents[2]
RUNNER = Path(__file__).with_name("runner.py")
PYTHON = "/usr/bin/python3"
MARK = str(100_000 + os.getpid())  # of this process: others run the same
ALONE = Ids(*[62_000 + os.getpid() % 2_000] * 2)  # processes are counted by user, and others are nobody's
SECRET = "a variable that nobody passes on"


def python(text: str) -> list[str]:
    return [PYTHON, "-c", text]


def sh(text: str) -> list[str]:
    return ["sh", "-c", text]


FORKS = """
import os, time
made = 0
try:
    while made < 300:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made, flush=True)
os._exit(0)
"""
MANY = """
import os, time
def hold():
    held = bytearray(10**8)
    time.sleep(15)
    os._exit(0 if held else 1)
pids = [os.fork() or hold() for _ in range(6)]
codes = [os.waitpid(pid, 0)[1] for pid in pids]
print("had not" if any(codes) else "had it all")
"""
DESCRIPTORS = """
import os, stat
for fd in range(256):
    try: print(fd, stat.filemode(os.fstat(fd).st_mode)[0], os.isatty(fd))
    except OSError: pass
print(repr(os.read(0, 10)))
try: os.open("/dev/tty", os.O_RDWR); print("a terminal")
except OSError: print("no terminal")
"""
NETWORK = """
import socket
try:
    socket.create_connection(("127.0.0.1", %d), 2)
    print("reached")
except OSError:
    print("not reached")
"""
LOOPBACK = """
import socket
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
client.sendall(b"over loopback")
print(server.accept()[0].recv(100).decode())
"""
READ = """
import sys
for path in sys.argv[1:]:
    try: print("read", open(path).read()[:20])
    except OSError as error: print("closed")
"""
WORK = """
set -e
cat a.txt link
echo changed > d/x
rm gone.txt
mkdir new && echo fresh > new/file
ln -s ../a.txt new/link
echo '#!/bin/sh' > tool
./run.sh
"""

JOBS: dict[str, dict[str, Any]] = {
    "code": {"argv": sh("exit 3")},
    "signal": {"argv": sh("kill -TERM $$")},
    "missing": {"argv": ["no-such-program"]},
    "output": {"argv": sh("printf one; printf two >&2; printf '\\033[31m'")},
    "work": {"argv": sh(WORK)},
    "environ": {"argv": ["env"], "environ": {"PASSED": "on", "LANG": "C"}},
    "descriptors": {"argv": python(DESCRIPTORS)},
    "time": {"argv": ["sleep", MARK], "limits": {"seconds": 0.7}},
    "flood": {"argv": ["cat", "/dev/zero"], "limits": {"output": 100_000}},
    "written": {"argv": sh("cat /dev/zero > big")},
    "written in pieces": {"argv": sh("i=0; while :; do head -c 8388608 /dev/zero > f$i || exit 0; i=$((i+1)); done")},
    "inodes": {"argv": sh("i=0; while :; do : > f$i; i=$((i+1)); done")},
    "memory": {"argv": python("held = [bytearray(10**7) for _ in range(100)]; print('had it all')")},
    "memory of many": {"argv": python(MANY)},
    "processes": {"argv": python(FORKS)},
    "nothing allowed": {"argv": sh("cat d/x"), "limits": {"written": 0, "inodes": 0, "output": 3}},
    "daemon": {"argv": sh(f"(setsid sleep {MARK} &) ; echo bye")},
    "background": {"argv": sh(f"sleep {MARK} & exit 0")},
    "twice": {"argv": sh('echo "$0" > mine; sleep 0.6; ls | grep -c mine; cat mine'), "twice": True},
}


class Results:
    """What came of the jobs for one kind and one user."""

    def __init__(self, kind: str, user: str, all_: dict[str, Any]) -> None:
        self.kind, self.user, self.all = kind, user, all_

    def __getitem__(self, name: str) -> dict[str, Any]:
        result: dict[str, Any] = self.all[name]
        assert "error" not in result, result
        return result

    def text(self, name: str) -> str:
        return base64.b64decode(self[name]["output"]).decode()


@pytest.fixture(scope="module")
def readable() -> Iterator[Path]:
    """The package where every uid can read it, and a place that every uid can enter."""
    here = Path(tempfile.mkdtemp(prefix="kai-test-sandboxes-"))
    shutil.copytree(ROOT / "kaivc", here / "kaivc", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(RUNNER, here)
    (here / "secret").write_text("a file of the user's")
    (here / "secret").chmod(0o644)
    subprocess.run(["chmod", "-R", "a+rX", here], check=True)
    yield here
    shutil.rmtree(here)


def command(kind: str, ids: Ids | None, readable: Path, place: str, jobs: dict[str, Any]) -> dict[str, Any]:
    interpreter = sys.executable if ids is None else PYTHON
    environ = {
        "PYTHONPATH": str(readable),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.environ["PATH"],
        "KAI_SECRET": SECRET,
    }
    who = {} if ids is None else {"user": ids.uid, "group": ids.gid, "extra_groups": []}
    return {
        "args": [interpreter, str(readable / "runner.py"), kind, place, json.dumps(jobs)],
        "env": environ,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": "/",
        **who,
    }


def place_of(readable: Path, ids: Ids | None) -> str:
    place = tempfile.mkdtemp(dir=readable)
    if ids is not None:
        os.chown(place, ids.uid, ids.gid)
    return place


@pytest.fixture(scope="module", params=["root", "another uid"])
def ids(request: pytest.FixtureRequest) -> Ids | None:
    if os.geteuid() != 0:
        if IN_CI:
            pytest.fail("the sandboxes are tried as root and as another uid: run this as root")
        if request.param == "root":
            pytest.skip("only root can be root")
        return None
    return None if request.param == "root" else ALONE


@pytest.fixture(scope="module", params=KINDS)
def results(request: pytest.FixtureRequest, ids: Ids | None, readable: Path) -> Iterator[Results]:
    kind = request.param
    if kind == "bubblewrap":
        require_tool("bwrap")
    server = socket.create_server(("127.0.0.1", 0))
    jobs = JOBS | {
        "network": {"argv": python(NETWORK % server.getsockname()[1])},
        "loopback": {"argv": python(LOOPBACK)},
        "secret": {"argv": [*python(READ), str(readable / "secret"), "/etc/shadow", f"/proc/{os.getpid()}/environ"]},
    }
    place = place_of(readable, ids)
    result = subprocess.run(**command(kind, ids, readable, place, jobs), check=False, timeout=200)
    server.close()
    assert result.returncode == 0, result.stderr
    all_ = json.loads(result.stdout)
    if all_["ability"]["level"] is None:
        text = f"{kind} cannot be had here: {all_['ability']['why']}"
        pytest.fail(text) if IN_CI or kind == "native" else pytest.skip(text)
    yield Results(kind, "root" if ids is None else "another uid", all_)
    shutil.rmtree(place)


def test_it_is_as_full_as_it_says(results: Results) -> None:
    assert results.all["ability"]["level"] == ("partial" if results.kind == "landlock" else "full")
    assert results.all["ability"]["notes"]


def test_the_exit_code_is_what_a_shell_would_say(results: Results) -> None:
    codes = {name: results[name]["exit_code"] for name in ("code", "signal", "missing", "output")}
    assert codes == {"code": 3, "signal": 143, "missing": 127, "output": 0}
    assert {results[name]["by"] for name in codes} == {"itself"}


def test_output_comes_through_raw(results: Results) -> None:
    assert results.text("output") == "onetwo\033[31m"


def test_the_layer_holds_what_was_written_and_the_version_is_as_before(results: Results) -> None:
    assert results.text("work") == "hello\nhello\nran\n"
    changes = {path: what and (what[0], what[11:]) for path, what in results["work"]["changes"].items()}
    changes.pop("d", None)  # an overlay's copy of the directory
    assert changes == {
        "d/x": ("-", "changed\n"),
        "gone.txt": None,
        "new": ("d", ""),
        "new/file": ("-", "fresh\n"),
        "new/link": ("l", "../a.txt"),
        "tool": ("-", "#!/bin/sh\n"),
    }


def test_no_job_changes_the_version_or_leaves_a_mount_or_a_descriptor(results: Results) -> None:
    done = [it for it in results.all.values() if isinstance(it, dict) and "by" in it]
    assert len(done) > 15
    assert all(it["lower_same"] for it in done)
    assert {it["mounts_more"] for it in done} == {0}
    assert len({it["fds"] for it in done}) == 1


def test_time_is_limited(results: Results) -> None:
    it = results["time"]
    assert (it["by"], it["exit_code"]) == ("time", 137)
    assert 0.7 <= it["seconds"] < 10


def test_output_is_limited(results: Results) -> None:
    assert results["flood"]["by"] == "output"
    assert len(base64.b64decode(results["flood"]["output"])) == 100_000


def test_bytes_are_limited(results: Results) -> None:
    assert results["written in pieces"]["by"] == "written"
    # Of one file the kernel says so itself, with a signal.
    it = results["written"]
    assert it["by"] == "written" or it["exit_code"] == 128 + signal.SIGXFSZ


def test_who_writes_nothing_needs_no_room(results: Results) -> None:
    assert (results["nothing allowed"]["by"], results.text("nothing allowed")) == ("itself", "one")


def test_inodes_are_limited(results: Results) -> None:
    assert results["inodes"]["by"] == "inodes"


@pytest.mark.parametrize("job", ["memory", "memory of many"])
def test_memory_is_limited(results: Results, job: str) -> None:
    """Whoever holds it: the command is killed, or is told that there is no more."""
    it = results[job]
    assert "had it all" not in results.text(job)
    assert it["by"] == "memory" or it["exit_code"] != 0 or results.text(job) == "had not\n"


def test_processes_are_limited(results: Results) -> None:
    assert 5 <= int(results.text("processes")) <= 32


def test_what_is_left_running_is_told_and_killed(results: Results) -> None:
    assert results.text("daemon") == "bye\n"
    assert [results[name]["left_running"] for name in ("daemon", "background", "code")] == [1, 1, 0]
    assert sleepers() == []


def test_only_named_variables_pass(results: Results) -> None:
    environ = dict(line.split("=", 1) for line in results.text("environ").splitlines())
    assert environ.pop("PASSED") == "on"
    assert environ.pop("LANG") == "C"
    assert SECRET not in environ.values()
    assert set(environ) <= {"PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "PWD", "_", "SHLVL"}


def test_no_descriptor_passes_and_there_is_no_terminal(results: Results) -> None:
    *held, read, terminal = results.text("descriptors").splitlines()
    assert held == ["0 c False", "1 p False", "2 p False"]
    assert (read, terminal) == ("b''", "no terminal")


def test_the_machine_is_not_reached(results: Results) -> None:
    assert results.text("network") == "not reached\n"


def test_there_is_a_loopback_of_its_own(results: Results) -> None:
    if results.kind == "landlock":
        assert results["loopback"]["exit_code"] == 1, "no sockets at all"
    else:
        assert results.text("loopback") == "over loopback\n"


def test_the_users_files_are_not_visible(results: Results) -> None:
    assert results.text("secret") == "closed\nclosed\nclosed\n"


def test_two_at_once_do_not_see_each_other(results: Results) -> None:
    for it, which in zip(results.all["twice"], ("one", "two"), strict=True):
        assert base64.b64decode(it["output"]).decode() == f"1\n{which}\n"
        assert set(it["changes"]) == {"mine"}


def test_what_it_took_is_told(results: Results) -> None:
    it = results["memory of many"]
    assert it["peak_memory"] > 50 << 20
    assert 0 < results["work"]["seconds"] < 20
    assert results["flood"]["cpu_seconds"] >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_outlives_a_killed_kai(kind: str, ids: Ids | None, readable: Path) -> None:
    if kind == "bubblewrap":
        require_tool("bwrap")
    jobs = {"long": {"argv": sh(f"setsid sleep {MARK} & sleep {MARK}")}}
    place = place_of(readable, ids)
    kai = subprocess.Popen(**command(kind, ids, readable, place, jobs))
    try:
        until(lambda: len(sleepers()) == 2 or kai.poll() is not None, "the command runs")
        assert kai.poll() is None, kai.communicate()
    finally:
        kai.send_signal(signal.SIGKILL)
        kai.communicate()
    until(lambda: sleepers() == [], "nothing runs on")


def sleepers() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdigit() and Path(f"/proc/{name}/cmdline").read_bytes() == f"sleep\0{MARK}\0".encode():
                found.append(int(name))
    return found


def until(so: Any, what: str) -> None:
    end = time.monotonic() + 15
    while not so():
        assert time.monotonic() < end, what
        time.sleep(0.02)
