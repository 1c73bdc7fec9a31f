"""The seccomp filter: which system calls a command in a sandbox may make. Pure assembly; nothing is loaded here.

The filter is a list of what is refused, and refuses every call that is newer than itself, so that a kernel that learns
a new way to mount does not open a hole. It is a second wall: a namespace or a missing capability stops most of these
calls already.

Numbers: Linux 6.18, ``arch/x86/entry/syscalls/syscall_64.tbl`` for x86_64 and ``scripts/syscall.tbl`` (of old:
``include/uapi/asm-generic/unistd.h``) for aarch64. Instructions: ``include/uapi/linux/filter.h`` and ``seccomp.h``.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from typing import Final

from kaivc.errors import IsolationFailed
from kaivc.records import dataclass

# ---------------------------------------------------------------- what a rule can say

WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True)
class OneOf:
    """Argument ``arg``, masked, is one of ``values``.

    Only its low 32 bits are looked at: where the kernel takes an int it ignores the high half, and a rule that compared
    all 64 bits would be passed by setting one there.
    """

    arg: int
    values: tuple[int, ...]
    mask: int = WORD


@dataclass(frozen=True)
class NoneOf:
    """The opposite of `OneOf`; of the high 32 bits with ``high``, as a pointer has them."""

    arg: int
    values: tuple[int, ...]
    mask: int = WORD
    high: bool = False


@dataclass(frozen=True)
class AnyBit:
    """Argument ``arg`` has one of the bits of ``mask`` set."""

    arg: int
    mask: int


@dataclass(frozen=True)
class Refusal:
    """The call fails with ``error`` when all of ``when`` holds; always, when that is empty."""

    error: int
    when: tuple[OneOf | NoneOf | AnyBit, ...] = ()


def _always(error: int, names: str) -> dict[str, tuple[Refusal, ...]]:
    return {name: (Refusal(error),) for name in names.split()}


# ---------------------------------------------------------------- what is refused

_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DGRAM, _SEQPACKET = 1, 2, 5
_KIND: Final = 0xF  # the type of a socket without SOCK_CLOEXEC and SOCK_NONBLOCK
_TCP, _UDP = 6, 17
_SETID: Final = 0o6000
_CREATES: Final = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. NEWTIME shares its bit with the exit signal, and is
# read by clone3 and unshare alone.
_NAMESPACES: Final = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
# TIOCSTI types into a terminal and TIOCLINUX pastes; TIOCCONS takes the console; TIOCSETD loads a line discipline.
_TERMINAL: Final = (0x5412, 0x541C, 0x541D, 0x5423)
_DEVICES: Final = (0o020000, 0o060000)  # S_IFCHR, S_IFBLK: a device 0/0 would forge a deletion in an overlay
_WHITEOUT: Final = 4

REFUSED: Final[dict[str, tuple[Refusal, ...]]] = {
    **_always(
        errno.EPERM,
        # Mounts and roots.
        "mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr "
        "statmount listmount "
        # Namespaces.
        "unshare setns sethostname setdomainname "
        # Other processes.
        "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd "
        # Keyrings, and large or young parts of the kernel.
        "keyctl add_key request_key bpf perf_event_open userfaultfd memfd_secret fanotify_init fanotify_mark "
        "io_uring_setup io_uring_enter io_uring_register modify_ldt "
        # The machine.
        "init_module finit_module delete_module create_module query_module get_kernel_syms kexec_load "
        "kexec_file_load reboot swapon swapoff quotactl quotactl_fd acct syslog vhangup iopl ioperm nfsservctl "
        "settimeofday clock_settime clock_adjtime adjtimex lookup_dcookie sysfs ustat uselib _sysctl vserver "
        "afs_syscall "
        # Files by handle pass around every directory.
        "name_to_handle_at open_by_handle_at "
        # Memory of other nodes.
        "mbind set_mempolicy get_mempolicy migrate_pages move_pages set_mempolicy_home_node",
    ),
    # Their flags lie in memory, where a filter cannot look; callers fall back to clone and openat.
    **_always(errno.ENOSYS, "clone3 openat2"),
    "clone": (Refusal(errno.EPERM, (AnyBit(0, _NAMESPACES),)),),
    "personality": (Refusal(errno.EPERM, (NoneOf(0, (0, WORD)),)),),  # others turn off address randomisation
    "ioctl": (Refusal(errno.EPERM, (OneOf(1, _TERMINAL),)),),
    "socket": (
        # Netlink's family "route" is how libc lists addresses; raw is its usual type, and gives nothing more.
        Refusal(errno.EAFNOSUPPORT, (NoneOf(0, (_UNIX, _INET, _INET6, _NETLINK)),)),
        Refusal(errno.EPROTONOSUPPORT, (OneOf(0, (_NETLINK,)), NoneOf(2, (0,)))),
        Refusal(errno.EPERM, (OneOf(0, (_UNIX,)), NoneOf(1, (_STREAM, _DGRAM, _SEQPACKET), _KIND))),
        Refusal(errno.EPERM, (OneOf(0, (_INET, _INET6)), NoneOf(1, (_STREAM, _DGRAM), _KIND))),
        Refusal(errno.EPROTONOSUPPORT, (OneOf(0, (_INET, _INET6)), NoneOf(2, (0, _TCP, _UDP)))),
    ),
    "socketpair": (Refusal(errno.EAFNOSUPPORT, (NoneOf(0, (_UNIX,)),)),),
    "mknod": (
        Refusal(errno.EPERM, (OneOf(1, _DEVICES, 0o170000),)),
        Refusal(errno.EPERM, (AnyBit(1, _SETID),)),
    ),
    "mknodat": (
        Refusal(errno.EPERM, (OneOf(2, _DEVICES, 0o170000),)),
        Refusal(errno.EPERM, (AnyBit(2, _SETID),)),
    ),
    "renameat2": (Refusal(errno.EINVAL, (AnyBit(4, _WHITEOUT),)),),
    # Set-uid and set-gid bits, however a file gets them.
    "chmod": (Refusal(errno.EPERM, (AnyBit(1, _SETID),)),),
    "fchmod": (Refusal(errno.EPERM, (AnyBit(1, _SETID),)),),
    "fchmodat": (Refusal(errno.EPERM, (AnyBit(2, _SETID),)),),
    "fchmodat2": (Refusal(errno.EPERM, (AnyBit(2, _SETID),)),),
    "creat": (Refusal(errno.EPERM, (AnyBit(1, _SETID),)),),
    "open": (Refusal(errno.EPERM, (AnyBit(1, _CREATES), AnyBit(2, _SETID))),),
    "openat": (Refusal(errno.EPERM, (AnyBit(2, _CREATES), AnyBit(3, _SETID))),),
}
"""By the name of the call; the first refusal that holds is the answer, and no refusal lets it pass."""

_OTHERS: Final = (Refusal(errno.EPERM, (NoneOf(0, (0,)),)),)  # aimed at another than the caller

REFUSED_AMONG_OTHERS: Final[dict[str, tuple[Refusal, ...]]] = {
    # Without a network namespace any socket reaches the machine's; pairs stay, which reach nobody.
    **_always(errno.EPERM, "socket"),
    # Without an ipc namespace these are the machine's too.
    **_always(errno.EPERM, "shmget semget msgget mq_open"),
    # Without a pid namespace other processes of the same user have numbers.
    "prlimit64": _OTHERS,
    "sched_setaffinity": _OTHERS,
    "sched_setscheduler": _OTHERS,
    "sched_setparam": _OTHERS,
    "sched_setattr": _OTHERS,
    "setpriority": (Refusal(errno.EPERM, (NoneOf(0, (0,)),)), Refusal(errno.EPERM, (NoneOf(1, (0,)),))),
    **_always(errno.EPERM, "ioprio_set"),
    # Landlock asks nobody whether a directory may be watched, and what happens in it would be told by name.
    **_always(errno.EPERM, "inotify_add_watch"),
}
"""What is refused besides where the command has no namespaces of its own."""

REFUSED_UNCOUNTED: Final[dict[str, tuple[Refusal, ...]]] = _always(errno.ENOSYS, "memfd_create shmget msgget")
"""What is refused besides where no control group counts memory: such as belongs to no process and no file system of
ours, so that no limit and no look at processes would find it. Libraries fall back to files."""

REFUSED_BY_PATH: Final[dict[str, tuple[Refusal, ...]]] = {
    **_always(
        errno.EPERM,
        "chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat "
        "setxattr lsetxattr removexattr lremovexattr setxattrat removexattrat",
    ),
    # Without a path it is of an open file.
    "utimensat": (Refusal(errno.EPERM, (NoneOf(1, (0,)),)), Refusal(errno.EPERM, (NoneOf(1, (0,), high=True),))),
}
"""What is refused besides where the command's uid owns files outside, and only Landlock keeps it from them.

Landlock asks nobody for these, but does when a file is opened: what takes a descriptor stays.
"""

# ---------------------------------------------------------------- numbers


def _table(text: str) -> dict[str, int]:
    return {name: int(number) for name, _, number in (item.partition("=") for item in text.split())}


@dataclass(frozen=True)
class Arch:
    """An architecture as seccomp sees it: its AUDIT_ARCH, its numbers, and a bit that only foreign calls have."""

    audit: int
    numbers: dict[str, int]
    foreign_bit: int = 0


LAST: Final = 466
"""removexattrat: the newest call, of either architecture, that was judged. 467 to 469 are open_tree_attr and two that
set attributes of files; what comes later nobody knows."""

_X86_64: Final[dict[str, int]] = _table(
    """
    _sysctl=156 acct=163 add_key=248 adjtimex=159 afs_syscall=183 bpf=321 chmod=90 chroot=161 clock_adjtime=305
    clock_settime=227 clone=56 clone3=435 creat=85 create_module=174 delete_module=176 fanotify_init=300
    fanotify_mark=301 fchmod=91 fchmodat=268 fchmodat2=452 finit_module=313 fsconfig=431 fsmount=432 fsopen=430
    fspick=433 get_kernel_syms=177 get_mempolicy=239 init_module=175 inotify_add_watch=254 io_uring_enter=426
    io_uring_register=427 io_uring_setup=425 ioctl=16 ioperm=173 iopl=172 ioprio_set=251 kcmp=312 kexec_file_load=320
    kexec_load=246 keyctl=250 listmount=458 lookup_dcookie=212 mbind=237 memfd_create=319 memfd_secret=447
    migrate_pages=256 mknod=133 mknodat=259 modify_ldt=154 mount=165 mount_setattr=442 move_mount=429 move_pages=279
    mq_open=240 msgget=68 name_to_handle_at=303 nfsservctl=180 open=2 open_by_handle_at=304 open_tree=428 openat=257
    openat2=437 perf_event_open=298 personality=135 pidfd_getfd=438 pivot_root=155 prlimit64=302 process_madvise=440
    process_mrelease=448 process_vm_readv=310 process_vm_writev=311 ptrace=101 query_module=178 quotactl=179
    quotactl_fd=443 reboot=169 renameat2=316 request_key=249 sched_setaffinity=203 sched_setattr=314
    sched_setparam=142 sched_setscheduler=144 semget=64 set_mempolicy=238 set_mempolicy_home_node=450
    setdomainname=171 sethostname=170 setns=308 setpriority=141 settimeofday=164 shmget=29 socket=41 socketpair=53
    statmount=457 swapoff=168 swapon=167 sysfs=139 syslog=103 umount2=166 unshare=272 uselib=134 userfaultfd=323
    ustat=136 vhangup=153 vserver=236 chown=92 lchown=94 fchownat=260 utime=132 utimes=235 futimesat=261 utimensat=280
    setxattr=188 lsetxattr=189 removexattr=197 lremovexattr=198 setxattrat=463 removexattrat=466
    """
)
_AARCH64: Final[dict[str, int]] = _table(
    """
    acct=89 add_key=217 adjtimex=171 bpf=280 chroot=51 clock_adjtime=266 clock_settime=112 clone=220 clone3=435
    delete_module=106 fanotify_init=262 fanotify_mark=263 fchmod=52 fchmodat=53 fchmodat2=452 finit_module=273
    fsconfig=431 fsmount=432 fsopen=430 fspick=433 get_mempolicy=236 init_module=105 inotify_add_watch=27
    io_uring_enter=426 io_uring_register=427 io_uring_setup=425 ioctl=29 ioprio_set=30 kcmp=272 kexec_file_load=294
    kexec_load=104 keyctl=219 listmount=458 lookup_dcookie=18 mbind=235 memfd_create=279 memfd_secret=447
    migrate_pages=238 mknodat=33 mount=40 mount_setattr=442 move_mount=429 move_pages=239 mq_open=180 msgget=186
    name_to_handle_at=264 nfsservctl=42 open_by_handle_at=265 open_tree=428 openat=56 openat2=437 perf_event_open=241
    personality=92 pidfd_getfd=438 pivot_root=41 prlimit64=261 process_madvise=440 process_mrelease=448
    process_vm_readv=270 process_vm_writev=271 ptrace=117 quotactl=60 quotactl_fd=443 reboot=142 renameat2=276
    request_key=218 sched_setaffinity=122 sched_setattr=274 sched_setparam=118 sched_setscheduler=119 semget=190
    set_mempolicy=237 set_mempolicy_home_node=450 setdomainname=162 sethostname=161 setns=268 setpriority=140
    settimeofday=170 shmget=194 socket=198 socketpair=199 statmount=457 swapoff=225 swapon=224 syslog=116 umount2=39
    unshare=97 userfaultfd=282 vhangup=58 fchownat=54 utimensat=88 setxattr=5 lsetxattr=6 removexattr=14
    lremovexattr=15 setxattrat=463 removexattrat=466
    """
)
ARCHES: Final = {
    "x86_64": Arch(0xC000003E, _X86_64, foreign_bit=0x40000000),  # the bit of x32
    "aarch64": Arch(0xC00000B7, _AARCH64),
}
"""By the machine's name, as uname gives it."""

# ---------------------------------------------------------------- assembly

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _GREATER, _BITS = 0x15, 0x25, 0x45
_NUMBER, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; both architectures are little-endian
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000

_Code = list[tuple[int, int, int, int]]


def program(arch: str | None = None, *, apart: bool = True, owner: bool = False, counted: bool = True) -> bytes:
    """The filter, an array of ``struct sock_filter``, for ``arch`` (this machine's when None).

    ``apart`` says that the command has namespaces of its own; without them it gets no sockets, no System V objects,
    and may not tune other processes. ``owner`` says that it can reach files of its uid outside, ``counted`` that a
    control group counts its memory. Raises IsolationFailed for an architecture without a table.
    """
    name = os.uname().machine if arch is None else arch
    if name not in ARCHES:
        raise IsolationFailed(
            f"there is no system call filter for {name}",
            unchanged="the command has not run",
            hint="use a machine that is one of: " + ", ".join(ARCHES),
            guard="seccomp",
        )
    here = ARCHES[name]
    code: _Code = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, here.audit), (_RETURN, 0, 0, _KILL_PROCESS)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if here.foreign_bit:
        code += [(_BITS, 0, 1, here.foreign_bit), (_RETURN, 0, 0, _KILL_PROCESS)]
    code += [(_GREATER, 0, 1, LAST), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    for call, refusals in refused(apart=apart, owner=owner, counted=counted).items():
        if call in here.numbers:
            body = _answer(refusals)
            code += [(_EQUAL, 0, len(body), here.numbers[call]), *body]
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def refused(*, apart: bool, owner: bool, counted: bool) -> dict[str, tuple[Refusal, ...]]:
    """The rules by the name of the call, of every architecture."""
    more = ({} if counted else REFUSED_UNCOUNTED) | ({} if apart else REFUSED_AMONG_OTHERS)
    return REFUSED | more | (REFUSED_BY_PATH if owner else {})


def _answer(refusals: Iterable[Refusal]) -> _Code:
    code: _Code = []
    for refusal in refusals:
        block: _Code = [(_RETURN, 0, 0, _ERRNO | refusal.error)]
        for condition in reversed(refusal.when):
            block = _condition(condition, len(block)) + block
        code += block
        if not refusal.when:
            return code
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def _condition(condition: OneOf | NoneOf | AnyBit, skip: int) -> _Code:
    """Falls through where the condition holds, else jumps over the ``skip`` instructions that follow."""
    half = 4 if isinstance(condition, NoneOf) and condition.high else 0
    code: _Code = [(_LOAD, 0, 0, _ARGS + 8 * condition.arg + half)]
    if isinstance(condition, AnyBit):
        return [*code, (_BITS, 0, skip, condition.mask)]
    if condition.mask != WORD:
        code += [(_AND, 0, 0, condition.mask)]
    last = len(condition.values) - 1
    for index, value in enumerate(condition.values):
        to_end = last - index
        if isinstance(condition, OneOf):
            code += [(_EQUAL, to_end, 0 if to_end else skip, value)]
        else:
            code += [(_EQUAL, to_end + skip, 0, value)]
    return code
