"""What the payload of a native sandbox gives up before it becomes the command; each of these, kai sees from outside."""

from __future__ import annotations

import ctypes
import os

from kaivc.sandboxes import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kaivc.sandboxes.talk import Child

CAPABILITIES = 64
SECUREBITS = 0xEF  # NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE with their locks; KEEP_CAPS only locked
_CAPABILITY_VERSION = 0x20080522
_JOIN_SESSION_KEYRING = 1
_SET_MODE_FILTER = 1
_SIZE_OF_LIMIT = 8


def start_session(_: Child) -> None:
    """No controlling terminal, no process group shared with anybody."""
    os.setsid()


def fresh_keyring(_: Child) -> None:
    """A session keyring without any of the user's keys."""
    try:
        kernel.call("keyctl", _JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno not in (38, 1):  # a kernel without keys, or a container that refuses them: there are none
            raise


def keep_descriptors(_: Child) -> None:
    """Nothing but an empty input, the output, and the line to kai, which closes as the command starts."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.closerange(4, 1 << 20)
    os.set_inheritable(3, False)


def set_limits(child: Child) -> None:
    """The resource limits that kai worked out: pairs of a resource and its value, soft and hard."""
    told = [int(part) for part in child.several(b"limits")]
    for resource, value in zip(told[::2], told[1::2], strict=True):
        both = value.to_bytes(_SIZE_OF_LIMIT, "little") * 2
        kernel.call("prlimit64", 0, resource, both, None)


def drop_bounding(_: Child) -> None:
    """No program can bring a capability back."""
    for capability in range(CAPABILITIES):
        try:
            kernel.call("prctl", kernel.PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno == 22 and capability:  # past the last one that this kernel knows  # noqa: PLR2004
                return
            raise


def lock_securebits(_: Child) -> None:
    """An id of 0 means nothing, for good."""
    kernel.call("prctl", kernel.PR_SET_SECUREBITS, SECUREBITS, 0, 0, 0)


def take_ids(child: Child) -> None:
    """The uid and gid of the command; the groups went before."""
    uid, gid = child.number(b"uid"), child.number(b"gid")
    kernel.call("setresgid", gid, gid, gid)
    kernel.call("setresuid", uid, uid, uid)
    kernel.call("prctl", kernel.PR_SET_DUMPABLE, 1, 0, 0, 0)  # so that kai may look without privileges


def give_up_capabilities(_: Child) -> None:
    """All sets but the bounding one: effective, permitted, inheritable, ambient."""
    kernel.call("prctl", kernel.PR_CAP_AMBIENT, kernel.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    kernel.call("capset", _CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4), bytes(24))


def forbid_new_privileges(_: Child) -> None:
    """No setuid, no file capabilities."""
    kernel.call("prctl", kernel.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def filter_calls(child: Child) -> None:
    """Load the filter of system calls, the last thing before kai looks."""
    code = child.told[b"seccomp"]
    buffer = ctypes.create_string_buffer(code, len(code))
    head = (len(code) // 8).to_bytes(8, "little") + ctypes.addressof(buffer).to_bytes(8, "little")
    kernel.call("seccomp", _SET_MODE_FILTER, 0, head)


# ------------------------------------------------------------ Landlock

_READ = 0b1101  # execute, read a file, read a directory
_FILE = 0b0110 | 1 << 14  # write, read, truncate
_DEVICES = 1 << 6 | 1 << 11  # make a character or a block device
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_NEWEST = (1 << 16) - 1
_IOCTL = 1 << 15
_SCOPES_FROM = 6
_SCOPES = 0b11  # abstract sockets and signals stay within


def restrict_files(child: Child) -> None:
    """On top of the mounts: read what is there, write what is the command's. Told to kai; passed over where absent."""
    try:
        version = kernel.call("landlock_create_ruleset", None, 0, 1)
    except OSError as error:
        if error.errno in (38, 95):
            return
        raise
    handled = _ALL.get(version, _NEWEST)
    words = [handled, 0, _SCOPES] if version >= _SCOPES_FROM else [handled]
    attributes = b"".join(word.to_bytes(8, "little") for word in words)
    ruleset = kernel.call("landlock_create_ruleset", attributes, len(attributes), 0)
    trees = [(b"/", _READ)]
    trees += [(tree, handled & ~_DEVICES & ~_IOCTL) for tree in child.several(b"writable")]
    trees += [(device, _FILE & handled) for device in child.several(b"devices")]
    for path, allowed in trees:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = allowed.to_bytes(8, "little") + fd.to_bytes(4, "little")
        kernel.call("landlock_add_rule", ruleset, 1, rule, 0)
        os.close(fd)
    kernel.call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
    child.told[b"landlock"] = b"%d" % version
