"""What the root of a native sandbox is made of, planned before anything is mounted, and so what must be found there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from kaivc.sandboxes import kernel
from kaivc.sandboxes.base import INSIDE, PATH

HOME: Final = "/home/agent"
USER: Final = "agent"
HOST: Final = "sandbox"
WRITABLE: Final = (INSIDE, "/tmp", HOME, "/dev/shm")  # noqa: S108 - inside
DEVICES: Final = tuple(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))

_READ: Final = kernel.RDONLY | kernel.NOSUID | kernel.NODEV
_DATA: Final = _READ | kernel.NOEXEC
_DEVICE: Final = kernel.RDONLY | kernel.NOSUID | kernel.NOEXEC
_WRITE: Final = kernel.NOSUID | kernel.NODEV

_PROGRAMS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC_DIRS: Final = ("/etc/alternatives", "/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted")
_ETC: Final = "ld.so.cache ld.so.conf localtime mime.types protocols services os-release ssl/openssl.cnf"
_ETC_FILES: Final = tuple(_ETC.split())
_LARGEST: Final = 1 << 20
# Readable by all, about the host and not about the command.
_MASKED: Final = """
    cmdline diskstats interrupts kallsyms kcore key-users keys kmsg latency_stats modules partitions
    sched_debug swaps sysrq-trigger timer_list
"""
_MASKED_FILES: Final = tuple(_MASKED.split())
_MASKED_DIRS: Final = ("acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty")
_NOTHING: Final = "/var/empty"
_SCRATCH: Final = "/var/scratch"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a command: those that pass, and where it lives."""
    own = {"HOME": HOME, "PATH": PATH, "TMPDIR": "/tmp", "USER": USER, "LOGNAME": USER}  # noqa: S108 - inside
    return {"LANG": "C.UTF-8", **given, **own}


class HostMount(NamedTuple):
    """A line of a mountinfo: https://docs.kernel.org/filesystems/proc.html."""

    device: str
    root: str
    point: str
    options: frozenset[str]
    shared: bool
    kind: str


class Wanted(NamedTuple):
    """A mount that must be there, with at least these attributes; ``origin`` is a device and a root in it, if known."""

    point: str
    kind: str
    flags: int
    origin: tuple[str, str] | None


class Plan(NamedTuple):
    """The steps for the child, and the mounts that they end in."""

    steps: list[bytes]
    mounts: list[Wanted]


def parse(text: str) -> list[HostMount]:
    """The mounts of a mountinfo, in its order."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind = right.split(" ")[0]
        shared = any(field.startswith(("shared:", "master:", "propagate_from:")) for field in fields[6:])
        options = frozenset(fields[5].split(","))
        found.append(HostMount(fields[2], _plain(fields[3]), _plain(fields[4]), options, shared, kind))
    return found


def _plain(text: str) -> str:
    for number, sign in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        text = text.replace("\\" + number, sign)
    return text


def below(path: str, tree: str) -> bool:
    """Whether a path is a directory or lies in it."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def origin(path: str, mounts: Iterable[HostMount]) -> tuple[str, str] | None:
    """The device that a path of the host lies on, and where on it."""
    best: HostMount | None = None
    for mount in mounts:
        if below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    if best is None:
        return None
    rest = path[len(best.point.rstrip("/")) :]
    return best.device, (best.root.rstrip("/") + rest) or "/"


class _Builder:
    """Adds up steps and mounts."""

    def __init__(self, host: list[HostMount]) -> None:
        self.host = host
        self.steps: list[bytes] = []
        self.mounts: list[Wanted] = []
        self._made = {"/"}

    def step(self, *parts: bytes) -> None:
        self.steps.append(kernel.pack(parts)[4:])

    def directory(self, path: str, mode: int = 0o755, whose: bytes = b"init") -> None:
        parent = os.path.dirname(path)
        if parent not in self._made:
            self.directory(parent)
        if path not in self._made:
            self._made.add(path)
            self.step(b"directory", path.encode(), b"%o" % mode, whose)

    def file(self, path: str, data: bytes) -> None:
        self.directory(os.path.dirname(path))
        self.step(b"file", path.encode(), data)

    def bind(self, source: str, target: str, flags: int, *, recursive: bool = False) -> None:
        """Bind a tree or a file of the host. What is mounted below it comes with it when ``recursive``."""
        how = b"recursive" if recursive else b"one"
        self.step(b"bind", target.encode(), source.encode(), b"%d" % flags, how)
        kind = _kind(source, self.host)
        self.mounts.append(Wanted(target, kind, flags, origin(source, self.host)))
        if recursive:
            for mount in self.host:
                if below(mount.point, source) and mount.point != source:
                    point = target + mount.point[len(source) :]
                    self.mounts.append(Wanted(point, mount.kind, flags, (mount.device, mount.root)))

    def within(self, source: str, target: str, flags: int) -> None:
        """Bind a directory of the new root."""
        self.step(b"bind", target.encode(), source.encode(), b"%d" % flags, b"within")
        self.mounts.append(Wanted(target, "tmpfs", flags, None))


def _kind(path: str, host: Iterable[HostMount]) -> str:
    best, kind = -1, ""
    for mount in host:
        if below(path, mount.point) and len(mount.point) >= best:
            best, kind = len(mount.point), mount.kind
    return kind


def plan(host: list[HostMount], scratch: int, inodes: int, *, ids: tuple[int, int]) -> Plan:
    """The root. ``scratch`` bytes and ``inodes`` files are what /tmp, the home and /dev/shm hold together in memory."""
    builder = _Builder(host)
    new = b"mode=755,size=16m,nr_inodes=4096"
    builder.step(b"tmpfs", b"", b"%d" % _WRITE, new)
    builder.mounts.append(Wanted("/", "tmpfs", _READ, None))
    _programs(builder)
    _etc(builder, ids)
    _scratch(builder, scratch, inodes)
    _devices(builder)
    _proc(builder)
    builder.directory(INSIDE)
    builder.mounts.append(Wanted(INSIDE, "overlay", _WRITE, None))
    return Plan(builder.steps, builder.mounts)


def _programs(builder: _Builder) -> None:
    builder.directory("/usr")
    builder.bind(os.path.realpath("/usr"), "/usr", _READ, recursive=True)
    for name in _PROGRAMS:
        path = f"/{name}"
        if os.path.islink(path):
            builder.step(b"link", path.encode(), os.readlink(os.fsencode(path)))
        elif os.path.isdir(path):
            builder.directory(path)
            builder.bind(path, path, _READ, recursive=True)


def _etc(builder: _Builder, ids: tuple[int, int]) -> None:
    uid, gid = ids
    builder.file("/etc/passwd", _lines(f"{USER}:x:{uid}:{gid}::{HOME}:/bin/sh", "nobody:x:65534:65534::/:/bin/false"))
    builder.file("/etc/group", _lines(f"{USER}:x:{gid}:", "nogroup:x:65534:"))
    builder.file("/etc/hosts", _lines(f"127.0.0.1 localhost {HOST}", f"::1 localhost {HOST}"))
    builder.file("/etc/hostname", _lines(HOST))
    builder.file("/etc/nsswitch.conf", _lines("passwd: files", "group: files", "hosts: files"))
    builder.file("/etc/host.conf", _lines("multi on"))
    for name in _ETC_FILES:
        data = _read(f"/etc/{name}")
        if data is not None:
            builder.file(f"/etc/{name}", data)
    for path in _ETC_DIRS:
        real = os.path.realpath(path)
        if os.path.isdir(real) and below(real, "/etc"):
            builder.directory(path)
            builder.bind(real, path, _DATA)


def _lines(*lines: str) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError:
        return None
    return data if len(data) <= _LARGEST else None


def _scratch(builder: _Builder, size: int, inodes: int) -> None:
    builder.directory(_SCRATCH)
    options = f"mode=755,size={size},nr_inodes={inodes + len(WRITABLE)}"
    builder.step(b"tmpfs", _SCRATCH.encode(), b"%d" % _WRITE, options.encode())
    for target, mode in (("/tmp", 0o1777), (HOME, 0o700), ("/dev/shm", 0o1777)):  # noqa: S108 - inside
        source = f"{_SCRATCH}/{os.path.basename(target)}"
        builder.directory(target)
        builder.directory(source, mode, b"payload")
        builder.within(source, target, _WRITE)
    builder.step(b"release", _SCRATCH.encode())
    builder.step(b"link", b"/var/tmp", b"/tmp")
    builder.directory("/run")
    builder.directory(_NOTHING, 0o555)


def _devices(builder: _Builder) -> None:
    for path in DEVICES:
        builder.file(path, b"")
        builder.bind(path, path, _DEVICE)
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        builder.step(b"link", f"/dev/{name}".encode(), f"/proc/self/{target}".encode())


def _proc(builder: _Builder) -> None:
    builder.directory("/proc")
    flags = _DATA
    builder.step(b"proc", b"/proc", b"%d" % flags)
    builder.mounts.append(Wanted("/proc", "proc", flags, None))
    for path in _present(_MASKED_FILES):
        builder.bind("/dev/null", path, _DEVICE)
    for path in _present(_MASKED_DIRS):
        builder.within(_NOTHING, path, _DATA)


def _present(names: Iterable[str]) -> Iterator[str]:
    return (path for name in names if os.path.lexists(path := f"/proc/{name}"))
