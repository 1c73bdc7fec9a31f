"""What the attempts share: their targets, system calls by name, and how an attempt says how it went.

``WON`` and what for, ``HELD`` and why, or ``DONE`` where only somebody outside can judge. An OSError that nobody
catches is ``HELD``; any other end says that the attempt itself is broken.
"""

import ctypes
import json
import os
import sys

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "targets.json")) as _file:
    TARGETS = json.load(_file)
LIBC = ctypes.CDLL(None, use_errno=True)
IS_X86 = os.uname().machine == "x86_64"
HIGH = 1 << 32
_X86 = """
    mmap=9 mprotect=10 ioctl=16 shmget=29 shmat=30 socket=41 socketpair=53 clone=56 kill=62 chmod=90 ptrace=101
    syslog=103 setuid=105 capset=126 mknod=133 personality=135 pivot_root=155 prctl=157 chroot=161 acct=163
    settimeofday=164 mount=165 umount2=166 swapon=167 sethostname=170 init_module=175 quotactl=179 add_key=248
    request_key=249 keyctl=250 mknodat=259 unshare=272 clock_settime=227 kexec_load=246 perf_event_open=298
    fanotify_init=300 prlimit64=302 name_to_handle_at=303 open_by_handle_at=304 setns=308 process_vm_readv=310
    process_vm_writev=311 kcmp=312 finit_module=313 renameat2=316 memfd_create=319 bpf=321 execveat=322
    userfaultfd=323 fchmodat2=452 inotify_init1=294 inotify_add_watch=254 setpriority=141 sched_setaffinity=203
"""
_ARM = """
    mmap=222 mprotect=226 ioctl=29 shmget=194 shmat=196 socket=198 socketpair=199 clone=220 kill=129 ptrace=117
    syslog=116 setuid=146 capset=91 personality=92 pivot_root=41 prctl=167 chroot=51 acct=89 settimeofday=170 mount=40
    umount2=39 swapon=224 sethostname=161 init_module=105 quotactl=60 add_key=217 request_key=218 keyctl=219 mknodat=33
    unshare=97 clock_settime=112 kexec_load=104 perf_event_open=241 fanotify_init=262 prlimit64=261
    name_to_handle_at=264 open_by_handle_at=265 setns=268 process_vm_readv=270 process_vm_writev=271 kcmp=272
    finit_module=273 renameat2=276 memfd_create=279 bpf=280 execveat=281 userfaultfd=282 fchmodat2=452
    inotify_init1=26 inotify_add_watch=27 setpriority=140 sched_setaffinity=122
"""
_BOTH = """
    pidfd_send_signal=424 io_uring_setup=425 open_tree=428 move_mount=429 fsopen=430 fspick=433 pidfd_open=434
    clone3=435 openat2=437 pidfd_getfd=438 mount_setattr=442 memfd_secret=447 open_tree_attr=467
"""
NUMBERS = {
    name: int(number) for name, _, number in (it.partition("=") for it in ((_X86 if IS_X86 else _ARM) + _BOTH).split())
}


def won(what=""):
    """The guard is broken."""
    print("WON", what, flush=True)
    os._exit(0)


def held(why=""):
    """The guard held."""
    print("HELD", why, flush=True)
    os._exit(0)


def done():
    """Whoever is outside judges."""
    print("DONE", flush=True)
    os._exit(0)


def syscall(name, *args):
    """A system call as it is, by name or number; numbers as 64 bits. Raises OSError."""
    number = NUMBERS[name] if isinstance(name, str) else name
    words = [ctypes.c_long(it) if isinstance(it, int) else it for it in args]
    result = LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(name))
    return result


def each(tries):
    """Take each try; those that raise OSError are held, and the first that gives something wins."""
    why = ""
    for it in tries:
        try:
            found = it()
        except OSError as error:
            why = str(error)
        else:
            if found is not None and found is not False:
                won(found)
    held(why)


def _hook(kind, error, _trace):
    if issubclass(kind, OSError):
        held(str(error))
    print("BROKEN", kind.__name__, error, flush=True)
    os._exit(1)


sys.excepthook = _hook
