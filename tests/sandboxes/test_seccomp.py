"""The filter of system calls: judged over its tables for each architecture, and by this machine's kernel."""

import errno
import json
import os
import re
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kaivc.errors import IsolationFailed
from kaivc.sandboxes import seccomp
from kaivc.sandboxes.seccomp import (
    ARCHES,
    LAST,
    REFUSED,
    REFUSED_AMONG_OTHERS,
    REFUSED_BY_PATH,
    REFUSED_UNCOUNTED,
    program,
)
from tests.conftest import IN_CI, Ids, run_as
from tests.sandboxes.bpf import ALLOW, ERRNO, KILL, judge

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
HIGH = 0xDEADBEEF << 32
JUNK = 0o7777
ALWAYS = sorted(name for name, refusals in REFUSED.items() if not refusals[0].when)

# Call, arguments, and what the filter says: None lets it pass.
BY_ARGUMENT = [
    ("clone", [17], None),
    ("clone", [0x3D0F00], None),  # a thread, as libc makes it
    *[("clone", [17 | bit], errno.EPERM) for bit in (1 << 17, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30)],
    ("clone", [HIGH | 17 | 1 << 28], errno.EPERM),
    ("personality", [0], None),
    ("personality", [0xFFFFFFFF], None),
    ("personality", [0x0040000], errno.EPERM),
    ("personality", [0x0400000], errno.EPERM),
    ("ioctl", [0, 0x5401], None),
    ("ioctl", [0, 0x5412], errno.EPERM),
    ("ioctl", [0, HIGH | 0x5412], errno.EPERM),
    ("ioctl", [0, 0x541C], errno.EPERM),
    ("ioctl", [0, 0x541D], errno.EPERM),
    ("ioctl", [0, 0x5423], errno.EPERM),
    ("socket", [socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0], None),
    ("socket", [socket.AF_UNIX, socket.SOCK_RAW, 0], errno.EPERM),
    ("socket", [socket.AF_INET, socket.SOCK_STREAM, 6], None),
    ("socket", [socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 17], None),
    ("socket", [socket.AF_INET, socket.SOCK_RAW, 1], errno.EPERM),
    ("socket", [socket.AF_INET, HIGH | socket.SOCK_RAW | socket.SOCK_CLOEXEC, 1], errno.EPERM),
    ("socket", [socket.AF_INET, 10, 0], errno.EPERM),  # SOCK_PACKET
    ("socket", [socket.AF_INET, socket.SOCK_SEQPACKET, 0], errno.EPERM),  # SCTP
    ("socket", [socket.AF_INET, socket.SOCK_STREAM, 132], errno.EPROTONOSUPPORT),
    ("socket", [16, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0], None),  # as getaddrinfo asks for addresses
    ("socket", [16, socket.SOCK_RAW, 9], errno.EPROTONOSUPPORT),  # audit
    *[("socket", [family, 3, 0], errno.EAFNOSUPPORT) for family in (0, 3, 17, 21, 29, 31, 38, 40, 44)],
    ("socketpair", [1, 1, 0], None),
    ("socketpair", [30, 1, 0], errno.EAFNOSUPPORT),
    ("mknod", [0, 0o010644], None),
    ("mknod", [0, 0o020644], errno.EPERM),
    ("mknod", [0, 0o060644], errno.EPERM),
    ("mknod", [0, 0o104755], errno.EPERM),
    ("mknodat", [0, 0, 0o010644], None),
    ("mknodat", [0, 0, 0o020000], errno.EPERM),
    ("mknodat", [0, 0, 0o060644], errno.EPERM),
    ("mknodat", [0, 0, 0o102755], errno.EPERM),
    ("renameat2", [0, 0, 0, 0, 1], None),
    ("renameat2", [0, 0, 0, 0, 4], errno.EINVAL),
    *[(name, [0, 0o1755], None) for name in ("chmod", "fchmod", "creat")],
    *[(name, [0, mode], errno.EPERM) for name in ("chmod", "fchmod", "creat") for mode in (0o4755, 0o2755, 0o6000)],
    *[(name, [0, 0, 0o1777], None) for name in ("fchmodat", "fchmodat2")],
    *[(name, [0, 0, HIGH | mode], errno.EPERM) for name in ("fchmodat", "fchmodat2") for mode in (0o4755, 0o2000)],
    ("open", [0, os.O_RDWR, JUNK], None),  # no file is made, and the third register holds anything
    ("open", [0, os.O_RDWR | os.O_CREAT, 0o666], None),
    ("open", [0, os.O_RDWR | os.O_CREAT, 0o4755], errno.EPERM),
    ("open", [0, os.O_RDWR | 0o20200000, 0o2755], errno.EPERM),
    ("openat", [0, 0, os.O_RDONLY, JUNK], None),
    ("openat", [0, 0, os.O_WRONLY | os.O_CREAT, 0o4755], errno.EPERM),
    ("openat", [0, 0, os.O_RDWR | 0o20200000, 0o2755], errno.EPERM),
]


def said(error: int | None) -> int:
    return ALLOW if error is None else ERRNO | error


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("apart", [True, False])
def test_what_is_always_refused(name: str, apart: bool) -> None:
    arch, filter_ = ARCHES[name], program(name, apart=apart)
    for call in ALWAYS:
        if call in arch.numbers:
            wanted = ERRNO | REFUSED[call][0].error
            assert judge(filter_, arch.audit, arch.numbers[call]) == wanted, call
            assert judge(filter_, arch.audit, arch.numbers[call], [HIGH | 1] * 6) == wanted, call


@pytest.mark.parametrize("name", ARCHES)
def test_what_is_refused_by_its_arguments(name: str) -> None:
    arch, filter_ = ARCHES[name], program(name)
    for call, args, error in BY_ARGUMENT:
        if call in arch.numbers:
            assert judge(filter_, arch.audit, arch.numbers[call], args) == said(error), (call, args)
    tried = {call for call, _, error in BY_ARGUMENT if error is not None}
    assert tried == set(REFUSED) - set(ALWAYS), "each rule with conditions is tried"


@pytest.mark.parametrize("name", ARCHES)
def test_what_else_is_refused_without_namespaces(name: str) -> None:
    arch, filter_ = ARCHES[name], program(name, apart=False)
    numbers = arch.numbers
    for call in ("socket", "shmget", "semget", "msgget", "mq_open", "ioprio_set", "inotify_add_watch"):
        assert judge(filter_, arch.audit, numbers[call], [1, 1, 0]) == EPERM, call
        if call != "socket":
            assert judge(program(name), arch.audit, numbers[call], [1, 1, 0]) == ALLOW, call
    assert judge(filter_, arch.audit, numbers["socketpair"], [1, 1, 0]) == ALLOW
    for call in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        assert judge(filter_, arch.audit, numbers[call], [0]) == ALLOW, call
        assert judge(filter_, arch.audit, numbers[call], [4711]) == EPERM, call
        assert judge(program(name), arch.audit, numbers[call], [4711]) == ALLOW, call
    assert judge(filter_, arch.audit, numbers["setpriority"], [0, 0, 5]) == ALLOW
    assert judge(filter_, arch.audit, numbers["setpriority"], [0, 4711, 5]) == EPERM
    assert judge(filter_, arch.audit, numbers["setpriority"], [2, 0, 5]) == EPERM


@pytest.mark.parametrize("name", ARCHES)
def test_memory_that_belongs_to_no_process_is_refused_where_nobody_counts_it(name: str) -> None:
    arch, filter_ = ARCHES[name], program(name, counted=False)
    for call in REFUSED_UNCOUNTED:
        assert judge(filter_, arch.audit, arch.numbers[call], [1, 1, 0]) == ERRNO | errno.ENOSYS, call
        assert judge(program(name), arch.audit, arch.numbers[call], [1, 1, 0]) == ALLOW, call


@pytest.mark.parametrize("name", ARCHES)
def test_files_outside_are_not_changed_by_their_path(name: str) -> None:
    """Landlock does not ask about modes, owners, times and attributes."""
    arch, filter_ = ARCHES[name], program(name, apart=False, owner=True)
    for call in set(REFUSED_BY_PATH) - {"utimensat"}:
        if call in arch.numbers:
            assert judge(filter_, arch.audit, arch.numbers[call], [0, 0, 0o644]) == EPERM, call
    times = arch.numbers["utimensat"]
    assert judge(filter_, arch.audit, times, [3, 0, 0, 0]) == ALLOW, "of an open file"
    for path in (0x7FFF12345678, 0x1234, 0x500000000):
        assert judge(filter_, arch.audit, times, [3, path, 0, 0]) == EPERM
    assert judge(filter_, arch.audit, arch.numbers["fchmod"], [3, 0o755]) == ALLOW
    assert judge(program(name), arch.audit, times, [3, 0x1234, 0, 0]) == ALLOW


@pytest.mark.parametrize("name", ARCHES)
def test_all_else_passes_up_to_the_newest_call_that_was_judged(name: str) -> None:
    arch, filter_ = ARCHES[name], program(name)
    ruled = {number for call, number in arch.numbers.items() if call in REFUSED}
    for number in range(LAST + 40):
        if number not in ruled:
            assert judge(filter_, arch.audit, number) == (ALLOW if number <= LAST else ENOSYS), number


@pytest.mark.parametrize("name", ARCHES)
def test_foreign_architectures_kill(name: str) -> None:
    arch, filter_ = ARCHES[name], program(name)
    foreign = {0x40000003, 0x40000028, 0xC000003E, 0xC00000B7, 0xC00000F3, 0} - {arch.audit}
    for other in foreign:
        for number in (0, 39, 172, 0x40000000):
            assert judge(filter_, other, number) == KILL
    assert judge(program("x86_64"), 0xC000003E, 0x40000000 | 39) == KILL, "x32"
    assert judge(program("x86_64"), 0xC000003E, 0x40000000 | 520) == KILL, "x32's own execve"
    assert judge(program("x86_64"), 0xC000003E, 520) == ENOSYS, "x32's numbers without its bit"


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(IsolationFailed) as caught:
        program("riscv64")
    assert caught.value.facts["guard"] == "seccomp"


def test_no_rule_is_for_a_name_that_no_architecture_has() -> None:
    known = {name for arch in ARCHES.values() for name in arch.numbers}
    all_ = set(REFUSED) | set(REFUSED_AMONG_OTHERS) | set(REFUSED_UNCOUNTED) | set(REFUSED_BY_PATH)
    assert all_ == known
    assert {n: v for n, v in ARCHES["x86_64"].numbers.items() if v >= 424} == {
        n: v for n, v in ARCHES["aarch64"].numbers.items() if v >= 424
    }, "all architectures share the numbers from 424 on"


@pytest.mark.parametrize(
    ("name", "header"),
    [("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "/usr/include/asm-generic/unistd.h")],
)
def test_numbers_are_those_of_the_kernels_headers(name: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    text = Path(header).read_text()
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text))
    found = {call: number for call, number in ARCHES[name].numbers.items() if call in numbers}
    assert len(found) > 80
    assert {call: int(numbers[call]) for call in found} == found


# ---------------------------------------------------------------- before this machine's kernel

# Sets no_new_privs, loads the filter, makes each call and prints what came of it.
LOADER = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
code, calls = bytes.fromhex(sys.argv[1]), json.loads(sys.argv[2])
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
buffer = ctypes.create_string_buffer(code, len(code))
program = Program(len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, os.strerror(ctypes.get_errno())
results = []
for number, args in calls:
    words = [ctypes.c_ulong(arg) for arg in args]
    results.append(0 if libc.syscall(ctypes.c_long(number), *words) >= 0 else ctypes.get_errno())
print(json.dumps(results), flush=True)
os._exit(0)
"""

HERE = os.uname().machine


def before_the_kernel(
    calls: list[tuple[int, list[int]]], ids: Ids | None, *, apart: bool = True
) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-c", LOADER, program(apart=apart).hex(), json.dumps(calls)]
    if ids is None:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    return run_as(ids, ["/usr/bin/python3", *argv[1:]], cwd="/")


@pytest.fixture(params=["this uid", "another uid"])
def ids(request: pytest.FixtureRequest) -> Ids | None:
    if HERE not in ARCHES:
        pytest.skip(f"no filter for {HERE}")
    return request.getfixturevalue("other_uid") if request.param == "another uid" else None


def test_the_kernel_refuses_each_call(ids: Ids | None) -> None:
    numbers = ARCHES[HERE].numbers
    # Arguments that could do harm are not among them: pointers are null, descriptors are closed.
    wanted = {call: ([0xFFFF] * 6 if call == "reboot" else [0] * 6, REFUSED[call][0].error) for call in ALWAYS}
    calls = [(numbers[call], args) for call, (args, _) in wanted.items() if call in numbers]
    expected = [error for call, (_, error) in wanted.items() if call in numbers]
    for call, args, error in BY_ARGUMENT:
        if call in numbers and error is not None:
            calls.append((numbers[call], args + [0] * (6 - len(args))))
            expected.append(error)
    result = before_the_kernel(calls, ids)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == expected


def test_the_kernel_refuses_what_reaches_others(ids: Ids | None) -> None:
    numbers = ARCHES[HERE].numbers
    calls = [("socket", [1, 1, 0]), ("socket", [2, 1, 0]), ("shmget", [0, 1, 0]), ("prlimit64", [os.getpid(), 7, 0, 0])]
    result = before_the_kernel([(numbers[call], args) for call, args in calls], ids, apart=False)
    assert json.loads(result.stdout) == [errno.EPERM] * len(calls)


def test_the_kernel_lets_ordinary_work_pass(ids: Ids | None) -> None:
    script = """
import os, socket, subprocess, tempfile, threading
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.run(["/bin/sh", "-c", "echo hello | cat"], capture_output=True).stdout == b"hello\\n"
with tempfile.TemporaryDirectory() as d:
    open(d + "/f", "w").write("x"); os.chmod(d + "/f", 0o755); os.rename(d + "/f", d + "/g"); os.mkfifo(d + "/p")
socket.socketpair(); s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname()); socket.getaddrinfo("127.0.0.1", 80); socket.if_nameindex()
print("done")
"""
    loader = LOADER.replace("os._exit(0)", "exec(sys.argv[3])")
    argv = ["/usr/bin/python3", "-I", "-c", loader, program().hex(), "[]", script]
    if ids is None:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    else:
        result = run_as(ids, argv, cwd="/")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("done\n")


@pytest.mark.skipif(HERE != "x86_64", reason="x32 is x86_64's")
def test_the_kernel_kills_x32(ids: Ids | None) -> None:
    result = before_the_kernel([(0x40000000 | 39, [])], ids)
    assert (result.returncode, result.stdout) == (-31, "")  # SIGSYS


@pytest.mark.skipif(HERE != "x86_64", reason="i386 is x86_64's")
def test_the_kernel_kills_i386(ids: Ids | None) -> None:
    # getpid through the old gate: mov eax, 20; int 0x80; ret
    gate = """
import ctypes, mmap, sys
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print("lived")
"""
    loader = LOADER.replace("os._exit(0)", "exec(sys.argv[3])")
    argv = ["/usr/bin/python3", "-I", "-c", loader, program().hex(), "[]", gate]
    if ids is None:
        result = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    else:
        result = run_as(ids, argv, cwd="/")
    assert "lived" not in result.stdout
    assert result.returncode in {-31, -11}  # SIGSYS; SIGSEGV where the kernel has no such gate


def test_the_program_is_small_enough_for_the_kernel() -> None:
    for name in ARCHES:
        for apart in (True, False):
            assert len(program(name, apart=apart)) % struct.calcsize("<HBBI") == 0
            assert len(program(name, apart=apart)) // 8 <= 4096
    assert seccomp.LAST < 467
    assert HERE in ARCHES or not IN_CI
