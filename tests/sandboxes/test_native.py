"""The native sandbox as root and as an ordinary user: what is seen, what is kept, and that a missing guard is E103."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from kaivc.errors import IsolationFailed
from kaivc.sandboxes import cgroups, kernel, looking
from kaivc.sandboxes.base import PATH, Job, Limits
from kaivc.sandboxes.native import Native
from tests.conftest import ROOT, run_as

TRIAL = Path(__file__).with_name("trial.py")
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
MARK = ["sh", "-c", "echo ran > /agent/ran; echo ran"]


@pytest.fixture(params=["root", "ordinary"])
def runs(request, public_tmp, public_python):
    """A function that runs cases as one of the two users, and gives what became of each."""
    ordinary = request.param == "ordinary"
    if os.geteuid() != 0 and not ordinary:
        pytest.skip("only root is root")

    made: list[Path] = []

    def run(*cases, timeout=120):
        base = public_tmp / str(len(made))
        made.append(base)
        base.mkdir()
        asked = json.dumps({"base": str(base), "cases": cases})
        if ordinary and os.geteuid() == 0:
            other = request.getfixturevalue("other_uid")
            os.chown(base, other.uid, other.gid)
            program = public_tmp / "trial.py"
            program.write_text(TRIAL.read_text())
            done = run_as(other, [*public_python, program, asked], timeout=timeout, cwd="/")
        else:
            done = subprocess.run(
                [sys.executable, TRIAL, asked],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                env=ENVIRON,
            )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    setattr(run, "ordinary", ordinary)  # noqa: B010 - said of a function
    return run


def command(case, base):
    return [sys.executable, str(TRIAL), json.dumps({"base": str(base), "cases": [case]})]


# ------------------------------------------------------------ what is seen, what is kept


def test_a_command_writes_into_the_layer_and_sees_nothing_of_the_host(runs):
    look = """
        echo x >> a; cat a; rm sub/b; mkdir new; echo n > new/f; ./run.sh
        echo "root $(ls / | tr '\\n' ' ')"
        echo "env $(env | cut -d= -f1 | sort | tr '\\n' ' ')"; echo "fds $(ls /proc/self/fd | wc -l)"
        echo "host $(hostname)"; echo "routes $(wc -l < /proc/net/route)"; echo "id $(id -u) $(id -Gn)"
        echo "pids $(ls /proc | grep '^[0-9]' | sort -n | tr '\\n' ' ')"
        echo "first [$(tr -d '\\0' < /proc/1/cmdline)] [$(cat /proc/1/environ 2>&1 | tail -c 20)]"
        for it in /usr/x /etc/x /x /proc/self/oom_score_adj /proc/sys/kernel/hostname /dev/x /var/x; do
            (echo 1 > $it) 2>/dev/null && echo "wrote $it"; done; true
    """
    [it] = runs({"argv": ["sh", "-c", look], "environ": {"GIVEN": "yes"}})
    assert "guard" not in it, it
    lines = dict(line.partition(" ")[::2] for line in it["output"].splitlines())
    assert it["output"].startswith("hello\nx\nran\n")
    own = {"agent", "dev", "etc", "home", "proc", "run", "tmp", "usr", "var"}
    assert own <= set(lines["root"].split()) <= own | {"bin", "sbin", "lib", "lib32", "lib64", "libx32"}
    assert lines["env"].split() == ["GIVEN", "HOME", "LANG", "LOGNAME", "PATH", "PWD", "TMPDIR", "USER"]
    assert lines["fds"] == "4"  # 0, 1, 2 and the directory itself
    assert lines["host"] == "sandbox"
    assert lines["routes"] == "1"  # the heading
    assert lines["pids"].split()[:2] == ["1", "2"]
    assert len(lines["pids"].split()) < 9
    assert lines["id"] == "1000 agent"
    assert lines["first"].startswith("[] [")
    assert "denied" in lines["first"]
    assert "wrote" not in it["output"]
    assert it["upper"] == {"a": "hello\nx\n", "sub": "0o40755", "sub/b": "device 0", "new": "0o40755", "new/f": "n\n"}
    assert (it["by"], it["exit_code"], it["left_running"], it["lower_unchanged"]) == ("itself", 0, 0, True)
    assert it["beside"] == ["upper"]


def test_a_file_that_is_only_read_is_not_copied(runs):
    [it] = runs(
        {"argv": ["sh", "-c", "cat a sub/b; ls -R; stat a; cat link; test -x run.sh"], "limits": {"written": 4096}}
    )
    assert it["upper"] == {}
    assert it["exit_code"] == 0
    assert "hello" in it["output"]


NO_LENDING = """
mount = inside.kernel.mount
def old(source, target, kind, flags, options=b""):
    if b"::" in options:
        raise OSError(22, "as before Linux 6.16", "mount")
    mount(source, target, kind, flags, options)
inside.kernel.mount = old
"""
NO_MAPPED_MOUNTS = """
from kaivc.sandboxes import kernel
detached = kernel.detached
def old(path, wanted, ids=None):
    if ids is not None:
        raise OSError(22, "as on a file system without")
    return detached(path, wanted)
kernel.detached = old
"""


@pytest.mark.parametrize("case", [{"boot": NO_LENDING}, {"here": NO_MAPPED_MOUNTS}], ids=["lending", "mapping"])
def test_where_the_kernel_cannot_lend_files_they_are_copied_and_all_else_holds(runs, case):
    [it] = runs({"argv": ["sh", "-c", "cat a; echo x >> a; rm sub/b; : > sub/c; ./run.sh"], **case})
    assert it["output"] == "hello\nran\n"
    assert it["upper"] == {"a": "hello\nx\n", "sub": "0o40755", "sub/b": "device 0", "sub/c": ""}
    assert (it["exit_code"], it["beside"], it["lower_unchanged"]) == (0, ["upper"], True)


def test_how_a_command_ends_is_said_as_a_shell_says_it(runs):
    cases = [["sh", "-c", "exit 3"], ["sh", "-c", "kill -TERM $$"], ["./a"], ["no-such-program"], ["./run.sh"]]
    assert [it["exit_code"] for it in runs(*({"argv": argv} for argv in cases))] == [3, 143, 126, 127, 0]


def test_the_environment_given_does_not_replace_the_sandbox_own(runs):
    [it] = runs({"argv": ["sh", "-c", "echo $PATH; echo $HOME"], "environ": {"PATH": "/evil", "HOME": "/root"}})
    assert it["output"].split() == [PATH, "/home/agent"]


def test_long_arguments_and_names_that_are_not_text_arrive_as_they_are(runs):
    count = "import os,sys; print(len(sys.argv[1]), os.environb[b'X'] == b'\\xff', len(os.environ['LONG']))"
    case = {"argv": ["python3", "-c", count, "a" * 50_000], "environ": {"X": "\udcff", "LONG": "b" * 60_000}}
    [it] = runs(case)
    assert it["output"].split() == ["50000", "True", "60000"]


SPREAD = "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/zero of=f$i bs=1M count=16 2>/dev/null; sleep 0.05; done; sleep 60"
HOGS = """
import os, time
for i in range(6):
    if os.fork() == 0:
        held = b"x" * (80 << 20)
        time.sleep(60)
time.sleep(60)
"""


def test_each_limit_ends_the_command_and_nothing_of_it_is_left(runs):
    cases = {
        "time": ({"seconds": 0.5}, "sleep 60"),
        "output": ({"output": 5000}, "yes"),
        "written": ({}, SPREAD),
        "inodes": ({}, "for i in $(seq 900); do : > n$i; done; sleep 60"),
        "memory": ({}, f"exec python3 -c '{HOGS}'"),
    }
    given = [{"argv": ["sh", "-c", script], "limits": limits} for limits, script in cases.values()]
    found = runs(*given)
    assert [it["by"] for it in found] == list(cases)
    assert all(it["seconds"] < 20 for it in found), "which is when the time of each is over"
    assert len(found[1]["output"]) == 5000


def test_one_file_may_not_take_more_than_the_layer(runs):
    [it] = runs({"argv": ["dd", "if=/dev/zero", "of=big", "bs=1M"]})
    assert it["by"] == "written"


def test_processes_are_counted_and_those_left_behind_are_killed(runs):
    fork = "import os,time\ntry:\n  while os.fork(): pass\nexcept OSError as e: print(e.errno)\nelse: time.sleep(60)"
    many, left = runs({"argv": ["python3", "-c", fork]}, {"argv": ["sh", "-c", "sleep 61 & setsid sleep 61 & exit 0"]})
    assert str(errno.EAGAIN) in many["output"]
    assert 0 < many["left_running"] <= 24
    assert (left["exit_code"], left["left_running"]) == (0, 2)


def test_a_version_below_what_every_command_sees_is_refused():
    job = Job(("true",), {}, "/usr/share", "/tmp", Limits(1 << 28, 9, 9, 9, 9, 9, 9))
    with pytest.raises(IsolationFailed) as caught:
        Native().run(job, lambda _: None)
    assert caught.value.facts["guard"] == "layer"


# ------------------------------------------------------------ a guard that is missing


def without(table, name):
    return f"inside.{table}[:] = [it for it in inside.{table} if it[0] != '{name}']"


CAN_BE_READ = "init can be read"
BROKEN = {
    **{f"no {name} namespace": f"inside.kernel.{name} = 0" for name in ("NEWUSER", "NEWNS", "NEWPID", "NEWNET")},
    **{f"no {name} namespace": f"inside.kernel.{name} = 0" for name in ("NEWIPC", "NEWUTS", "NEWCGROUP")},
    "no ids": without("STARTER", "ids"),
    "no layer": without("INIT", "layer"),
    "no root": without("INIT", "root"),
    "no overlay": without("INIT", "overlay"),
    "no pivot": without("INIT", "pivot"),
    "init holds capabilities": "inside.INIT_ALONE[:] = [it for it in inside.INIT_ALONE if it[1].__name__ != "
    "'give_up_capabilities']",
    "init has a bounding set": "inside.INIT_ALONE[:] = [it for it in inside.INIT_ALONE if it[1].__name__ != "
    "'drop_bounding']",
    "init may gain": "inside.INIT_ALONE[:] = [it for it in inside.INIT_ALONE if it[1].__name__ != "
    "'forbid_new_privileges']",
    CAN_BE_READ: "inside.INIT_ALONE[:] = [it for it in inside.INIT_ALONE if it[1].__name__ != 'hide']",
    "init says how it began": "inside.INIT_ALONE[:] = [it for it in inside.INIT_ALONE if it[1].__name__ != "
    "'forget_arguments']",
    "no session": without("PAYLOAD", "session"),
    "descriptors": without("PAYLOAD", "descriptors"),
    "no limits": without("PAYLOAD", "limits"),
    "bounding set": without("PAYLOAD", "bounding"),
    "capabilities": without("PAYLOAD", "capabilities") + "; " + without("PAYLOAD", "uid"),
    "no_new_privs": without("PAYLOAD", "no_new_privs"),
    "landlock": without("PAYLOAD", "landlock"),
    "seccomp": without("PAYLOAD", "seccomp"),
    "attributes": "inside.kernel.set_attributes = lambda *a, **k: None",
    "the old root stays": "call = inside.kernel.call\n"
    "inside.kernel.call = lambda name, *a: 0 if name == 'umount2' and a[0] == b'.' else call(name, *a)",
    "the root stays open": "real = inside.kernel.set_attributes\n"
    "inside.kernel.set_attributes = lambda t, *a, **k: None if t == b'/' else real(t, *a, **k)",
    "one mount more": "build = inside.rooting.build\ndef more(it):\n    build(it)\n"
    "    inside.kernel.mount(b'/etc', it.told[b'base'] + b'/new/run', b'', inside.kernel.MS_BIND)\n"
    "inside.INIT[:] = [(n, more if n == 'root' else s) for n, s in inside.INIT]",
    "another source": "real = inside.kernel.mount\ninside.kernel.mount = lambda source, *a: real(b'/etc' "
    "if source == b'/etc/alternatives' else source, *a)",
    "a descriptor more": "import os\ndef more(it):\n    os.open('/', os.O_PATH)\n"
    "inside.PAYLOAD[:] = [*inside.PAYLOAD[:-1], ('x', more), inside.PAYLOAD[-1]]",
    "proc of the host": "real = inside.kernel.mount\ninside.kernel.mount = lambda s, t, k, f, o=b'': real(b'/proc', t, "
    "b'', inside.kernel.MS_BIND | inside.kernel.MS_REC) if k == b'proc' else real(s, t, k, f, o)",
}
"""How the child can be broken, each a few lines that it runs before it begins."""


def test_each_guard_that_is_missing_is_e103_and_the_command_never_runs(runs):
    # Of root's init nothing can be read anyhow, since it changed its uid.
    broken = {name: boot for name, boot in BROKEN.items() if runs.ordinary or name != CAN_BE_READ}
    found = runs({"argv": MARK}, *({"argv": MARK, "boot": boot} for boot in broken.values()))
    assert found[0]["output"] == "ran\n"
    ran = [name for name, it in zip(broken, found[1:], strict=True) if "guard" not in it or it["output"] or it["upper"]]
    assert ran == [], [it for it in found[1:] if "guard" not in it]
    assert all(it["hint"] for it in found[1:])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can share the mounts of a namespace of its own")
@pytest.mark.parametrize(("boot", "holds"), [("", True), (without("INIT", "propagation"), False)])
def test_mounts_of_a_host_that_shares_them_stay_apart(tmp_path, boot, holds):
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "shared", *command({"argv": MARK, "boot": boot}, tmp_path)],
        capture_output=True,
        env=ENVIRON,
        timeout=30,
        check=True,
    )
    [it] = json.loads(done.stdout)
    assert ("guard" not in it) == holds
    assert (it["output"] == "ran\n") == holds


def test_kai_itself_breaking_a_promise_is_seen_too(runs):
    here = {
        "ids": "from kaivc.sandboxes import native as n; who = n.who\nn.who = lambda lower: (lambda w: w._replace("
        "inside=w.init_inside))(who(lower)) if who(lower).privileged else who(lower)._replace(outside=(1, 1))",
        "filter": "from kaivc.sandboxes import native as n, child as c\ntold = c.told\n"
        "n.told = lambda v: told({**v, 'seccomp': b''})",
    }
    for lines in here.values():
        [it] = runs({"argv": MARK, "here": lines})
        assert "guard" in it, it
        assert not it["output"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make control groups here")
def test_a_payload_outside_its_control_group_is_seen(runs):
    if runs.ordinary:
        pytest.skip("an ordinary user has none on this machine")
    [it] = runs({"argv": MARK, "here": "from kaivc.sandboxes import cgroups\ncgroups.Group.take = lambda *_: None"})
    assert it["guard"] == "control group"


FAULTS = [
    *(f"name == '{name}'" for name in ("unshare", "setresuid", "setresgid", "mount", "mount_setattr", "pivot_root")),
    *(f"name == '{name}'" for name in ("umount2", "ioctl", "sethostname", "keyctl", "prlimit64", "capset", "seccomp")),
    *(f"name == 'landlock_{name}'" for name in ("create_ruleset", "add_rule", "restrict_self")),
    *(f"name == 'prctl' and a[0] == {option}" for option in (1, 4, 24, 28, 38, 47)),
    *(f"name == 'mount' and seen == {number}" for number in range(2, 30, 3)),
    *(f"name == 'mount_setattr' and seen == {number}" for number in range(2, 25, 6)),
    "name == 'mount' and a[2] == b'overlay'",
    "name == 'mount' and a[2] == b'proc'",
    "name == 'unshare' and seen == 2",
]
INJECT = """
call, counts = inside.kernel.call, {{}}
def failing(name, *a):
    seen = counts[name] = counts.get(name, 0) + 1
    if {when}:
        raise OSError(5, 'injected', name)
    return call(name, *a)
inside.kernel.call = failing
"""


def test_each_call_that_fails_is_e103_and_the_command_never_runs(runs):
    found = runs(*({"argv": MARK, "boot": INJECT.format(when=when)} for when in FAULTS))
    ran = [when for when, it in zip(FAULTS, found, strict=True) if "guard" not in it or it["output"] or it["upper"]]
    assert ran == []


# ------------------------------------------------------------ kai dies


KILLED = """
import os, signal
from kaivc.sandboxes import child, native
real = {{"tell": child.Line.tell, "hear": child.Line.hear}}
left = [{after}]
def killing(self, *a, **k):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real["{what}"](self, *a, **k)
child.Line.{what} = killing
"""


@pytest.fixture
def reaper():
    """All that a killed kai leaves becomes this process's, which so can see that it ends.

    Its children from before, the servers of other tests, are let be; gives them.
    """
    before = {it.pid for it in looking.family(os.getpid())}
    kernel.call("prctl", 36, 1, 0, 0, 0)
    yield before
    kernel.call("prctl", 36, 0, 0, 0, 0)


def wait_until_childless(before, seconds=20.0):
    until = time.monotonic() + seconds
    while left := [it for it in looking.family(os.getpid()) if it.parent == os.getpid() and it.pid not in before]:
        if time.monotonic() > until:
            return left
        for it in left:
            with suppress(ChildProcessError):
                os.waitpid(it.pid, os.WNOHANG)
        time.sleep(0.01)
    return []


def start(case, base):
    return subprocess.Popen(command(case, base), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRON)


@pytest.mark.parametrize(
    ("what", "after"), [*(("hear", number) for number in range(1, 7)), *(("tell", number) for number in range(1, 5))]
)
def test_kai_killed_at_each_stage_leaves_no_process_no_mount_no_group(reaper, tmp_path, what, after):
    argv = ["sh", "-c", "setsid sleep 60 & sleep 60"]
    kai = start({"argv": argv, "here": KILLED.format(what=what, after=after), "limits": {"seconds": 1}}, tmp_path)
    output, _ = kai.communicate(timeout=60)
    assert kai.returncode == -signal.SIGKILL, output
    assert wait_until_childless(reaper) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    cgroups.collect()
    assert groups(kai.pid) == []


def test_kai_killed_while_the_command_runs_takes_it_along(reaper, tmp_path):
    kai = start({"argv": ["sh", "-c", "echo up > up; setsid sleep 60 & sleep 60"]}, tmp_path)
    up = tmp_path / "0/layer/overlay/upper/up"
    wait_for(up)
    probe = cgroups.Group.make(1 << 28, 9)
    can, made = bool(probe.controllers), bool(groups(kai.pid))
    probe.remove()
    assert made == can
    kai.kill()
    kai.communicate()
    assert wait_until_childless(reaper) == []
    cgroups.collect()
    assert groups(kai.pid) == []


def test_an_interrupt_ends_it_and_says_so(reaper, tmp_path):
    kai = start({"argv": ["sh", "-c", "echo up > up; sleep 60"]}, tmp_path)
    wait_for(tmp_path / "0/layer/overlay/upper/up")
    kai.send_signal(signal.SIGINT)
    output, _ = kai.communicate(timeout=60)
    [it] = json.loads(output)
    assert (it["by"], it["exit_code"]) == ("interrupt", 130)
    assert wait_until_childless(reaper) == []


def wait_for(path, seconds=30.0):
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def groups(pid):
    return list(Path("/sys/fs/cgroup").glob(f"**/{cgroups.PREFIX}{pid}-*"))
