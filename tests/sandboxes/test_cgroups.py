"""Where a control group may be made, and which left-over ones are removed."""

import os

from kaivc.sandboxes import cgroups
from kaivc.sandboxes.cgroups import Place, places
from kaivc.sandboxes.rootplan import parse

VERSION_2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
VERSION_1 = (
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)
CONTAINER = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"


def test_version_2_is_tried_above_before_below_as_a_group_with_processes_hands_nothing_on():
    own = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/term.scope\n"
    found = list(places(parse(VERSION_2), own))
    top = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice"
    assert found[0] == Place(2, "", top)
    assert found[-1] == Place(2, "", f"{top}/term.scope")
    assert all(it.parent.startswith("/sys/fs/cgroup") for it in found)


def test_version_1_has_a_place_for_each_controller():
    own = "8:pids:/\n4:memory:/jobs/one\n1:cpu,cpuacct:/\n0::/\n"
    found = set(places(parse(VERSION_1), own))
    assert found == {Place(1, "pids", "/sys/fs/cgroup/pids"), Place(1, "memory", "/sys/fs/cgroup/memory/jobs/one")}


def test_a_container_s_own_group_is_the_top_of_what_it_sees():
    assert list(places(parse(CONTAINER), "4:memory:/docker/abc\n")) == [Place(1, "memory", "/sys/fs/cgroup/memory")]
    assert list(places(parse(CONTAINER), "4:memory:/docker/abc/in\n")) == [
        Place(1, "memory", "/sys/fs/cgroup/memory/in")
    ]


def test_left_over_groups_are_told_by_who_made_them_and_when(tmp_path, monkeypatch):
    own = f"{cgroups.PREFIX}{os.getpid()}-{cgroups._started(os.getpid())}-0"
    reused = f"{cgroups.PREFIX}{os.getpid()}-1-0"
    gone = f"{cgroups.PREFIX}4194999-77-0"
    for at in (tmp_path / "a", tmp_path / "a/b", tmp_path / "c"):
        at.mkdir()
        (at / "cgroup.procs").touch()
    for path in (f"a/b/{own}", f"a/b/{reused}", f"c/{gone}", "a/b/another", f"a/{gone}"):
        (tmp_path / path).mkdir()
    monkeypatch.setattr(cgroups, "_here", lambda: [Place(2, "", str(tmp_path / "a/b"))])
    (tmp_path / "cgroup.procs").touch()
    cgroups.collect()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_dir()}
    assert left == {"a", "a/b", "c", f"a/b/{own}", "a/b/another"}


def test_a_process_is_in_its_group_only_when_all_controllers_say_so():
    group = cgroups.Group()
    group.name = "kai-sandbox-1-2-3"
    group._dirs = {"memory": (1, "/m"), "pids": (1, "/p")}
    assert group.holds("4:memory:/x/kai-sandbox-1-2-3\n8:pids:/kai-sandbox-1-2-3\n0::/\n")
    assert not group.holds("4:memory:/x/kai-sandbox-1-2-3\n8:pids:/\n0::/\n")
    assert not group.holds("")
    both = cgroups.Group()
    both.name = "kai-sandbox-1-2-4"
    both._dirs = {"memory": (2, "/m"), "pids": (2, "/m")}
    assert both.holds("0::/user.slice/kai-sandbox-1-2-4\n")
    assert not both.holds("0::/user.slice\n")
    assert cgroups.Group().holds("0::/\n")
