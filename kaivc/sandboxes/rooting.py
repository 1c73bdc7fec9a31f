"""How init builds the root of a native sandbox: it takes the steps that kai planned, and decides nothing itself."""

from __future__ import annotations

import os

from kaivc.sandboxes import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kaivc.sandboxes.talk import Child

_PATH_FD = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_INVALID = 22
COPY = b"copy"


def make_private(_: Child) -> None:
    """No mount made here is seen outside, and none made outside is seen here."""
    kernel.mount(b"none", b"/", b"", kernel.MS_REC | kernel.MS_PRIVATE)


def take_layers(child: Child) -> None:
    """Hang the version's files and the private layer into a file system in memory that covers ``base``."""
    os.umask(0)
    base = child.told[b"base"]
    names = [b"layer"] if child.told[b"lower_as"] == COPY else [b"lower", b"layer"]
    fds = child.fds or [os.open(child.told[name], _PATH_FD) for name in names]
    kernel.mount(b"tmpfs", base, b"tmpfs", kernel.NOSUID | kernel.NODEV, b"mode=755")
    for name in b"lower", b"layer", b"meta", b"new":
        kernel.make_dir(base + b"/" + name)
    for name, fd in zip(names, fds, strict=True):
        target = base + b"/" + name
        if child.fds:
            kernel.attach(fd, target)
        else:
            kernel.mount(b"/proc/self/fd/%d" % fd, target, b"", kernel.MS_BIND)
            wanted = kernel.NOSUID | kernel.NODEV | (kernel.RDONLY if name == b"lower" else 0)
            kernel.set_attributes(target, wanted)
        os.close(fd)


def build(child: Child) -> None:
    """Take every step of the plan below ``base``/new."""
    new = child.told[b"base"] + b"/new"
    for packed in child.several(b"plan"):
        kind, target, *rest = kernel.unpack(packed)
        _STEPS[kind](child, new + target, *rest)


def lay_over(child: Child) -> None:
    """Lay the private layer over the version's files.

    Those may be closed to all but their owner, and for him read-only. So the lower layer is a tree of names in memory
    that the command owns and may write to, and the files themselves only lend their bytes: nothing is copied before it
    is opened for writing. A kernel before 6.16 cannot do that without privileges; there, kai makes a copy.
    """
    base = child.told[b"base"]
    target = base + b"/new" + child.told[b"inside"]
    places = b",upperdir=%b/layer/upper,workdir=%b/layer/work" % (base, base)
    options = b"userxattr,volatile,lowerdir="
    if child.told[b"lower_as"] != COPY:
        _lend(child, base + b"/lower", base + b"/meta", b"")
        try:
            lent = options + base + b"/meta::" + base + b"/lower" + places
            kernel.mount(b"overlay", target, b"overlay", kernel.NOSUID | kernel.NODEV, lent)
        except OSError as error:
            if error.errno != _INVALID:
                raise
            child.tell(COPY)
            child.hear()
        else:
            return
    copied = options + base + b"/layer/lower" + places
    kernel.mount(b"overlay", target, b"overlay", kernel.NOSUID | kernel.NODEV, copied)


def enter(child: Child) -> None:
    """Make it the root, let go of the old one, and close it for writing."""
    os.chdir(child.told[b"base"] + b"/new")
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", kernel.MNT_DETACH)
    os.chdir("/")
    kernel.set_attributes(b"/", kernel.RDONLY | kernel.NOSUID | kernel.NODEV)
    os.chdir(child.told[b"inside"])


# ------------------------------------------------------------ steps


def _directory(child: Child, target: bytes, mode: bytes, whose: bytes) -> None:
    kernel.make_dir(target, int(mode, 8))
    if whose == b"payload":
        kernel.give(os.fsdecode(target), child.number(b"uid"), child.number(b"gid"))


def _link(_: Child, target: bytes, to: bytes) -> None:
    kernel.make_link(to, target)


def _file(_: Child, target: bytes, data: bytes) -> None:
    kernel.make_file(target, data)


def _tmpfs(_: Child, target: bytes, flags: bytes, options: bytes) -> None:
    kernel.mount(b"tmpfs", target, b"tmpfs", int(flags), options)


def _proc(_: Child, target: bytes, flags: bytes) -> None:
    kernel.mount(b"proc", target, b"proc", int(flags))


def _bind(child: Child, target: bytes, source: bytes, flags: bytes, how: bytes) -> None:
    if how == b"within":
        source = child.told[b"base"] + b"/new" + source
    recursive = how == b"recursive"
    kernel.mount(source, target, b"", kernel.MS_BIND | (kernel.MS_REC if recursive else 0))
    kernel.set_attributes(target, int(flags), recursive=recursive)


def _release(_: Child, target: bytes) -> None:
    kernel.call("umount2", target, kernel.MNT_DETACH)


def _lend(child: Child, lower: bytes, meta: bytes, path: bytes) -> None:
    """Make the tree of names in ``meta`` below ``path``, which starts with a slash or is empty."""
    uid, gid = child.number(b"uid"), child.number(b"gid")
    with os.scandir(lower + path) as entries:
        for entry in entries:
            name = path + b"/" + entry.name
            status = entry.stat(follow_symlinks=False)
            if entry.is_symlink():
                kernel.make_link(os.readlink(entry.path), meta + name)
            elif entry.is_dir(follow_symlinks=False):
                kernel.make_dir(meta + name, 0o755)
                _lend(child, lower, meta, name)
            elif entry.is_file(follow_symlinks=False):
                mode = 0o755 if status.st_mode & 0o100 else 0o644
                kernel.make_file(meta + name, mode=mode, size=status.st_size)
                kernel.set_mark(meta + name, "user.overlay.metacopy", b"")
                kernel.set_mark(meta + name, "user.overlay.redirect", name)
            else:
                raise OSError(_INVALID, "neither a file, a directory nor a link", name)
            kernel.give(os.fsdecode(meta + name), uid, gid)
            kernel.set_times(meta + name, status)


_STEPS: dict[bytes, Callable[..., None]] = {
    b"directory": _directory,
    b"link": _link,
    b"file": _file,
    b"tmpfs": _tmpfs,
    b"proc": _proc,
    b"bind": _bind,
    b"release": _release,
}
