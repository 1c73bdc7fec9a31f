"""What can be set, its defaults, and how layers of it are merged.

Nothing here reads a file or the environment: the doors do, and hand the bytes in. Sizes are bytes, times are
seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kaivc import yamltext
from kaivc.errors import InvalidName, InvalidSettings
from kaivc.fields import DAY, GIB, KIB, MIB, MINUTE, TIB, Field, root
from kaivc.names import Actor, check_name
from kaivc.records import dataclass, field, replace
from kaivc.yamltext import Node

FULL, PARTIAL = "full", "partial"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*\Z"
_CAPITALS = r"[A-Z][A-Z0-9_]{0,63}\Z"
_MANY: Final = 10**9
MAX_PROGRAM: Final = 1024
_INODES: Final = 2**64 - 1
_YEARS: Final = 100 * 365 * DAY


@dataclass(frozen=True)
class Isolation:
    """How a snapshot is isolated; ``given`` names what a text said, the rest are defaults."""

    enable: bool = True
    temp_dir: str = "/tmp/kai_snapshots"  # noqa: S108 - the documented default; made 0700, owner checked on use
    commit_changes: bool = False
    rollback_on_error: bool = True
    require: str = FULL
    env: tuple[str, ...] = ()
    memory: int = 2 * GIB
    processes: int = 256
    open_files: int = 1024
    written: int = 4 * GIB
    inodes: int = 100_000
    output: int = 16 * MIB
    time: float = 10.0 * MINUTE
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def over(self, base: Isolation) -> Isolation:
        """``base`` with what is given here laid over it."""
        said = {name: getattr(self, name) for name in self.given}
        return replace(base, **said, given=base.given | self.given)

    def loosens(self, base: Isolation) -> tuple[str, ...]:
        """The keys given here that isolate less than ``base`` does; a manifest needs a grant for them."""
        looser = {
            "enable": base.enable and not self.enable,
            "commit_changes": self.commit_changes and not base.commit_changes,
            "require": base.require == FULL and self.require != FULL,
            "env": not set(self.env) <= set(base.env),
            **{key: getattr(self, key) > getattr(base, key) for key in LIMITS},
        }
        return tuple(key for key, is_looser in looser.items() if is_looser and key in self.given)

    @property
    def limits(self) -> dict[str, Any]:
        """What a command may use, by the names that a sandbox gives its limits; the time as ``seconds``."""
        return {"seconds" if key == "time" else key: getattr(self, key) for key in LIMITS}


@dataclass(frozen=True)
class Settings:
    """Everything that can be set; `lock.wait` in a text is ``lock_wait`` here."""

    lock_wait: float = 5.0
    limits_max_file: int = 16 * GIB
    limits_max_files: int = 1_000_000
    views_keep: int = 10
    views_max_bytes: int = GIB
    backups_keep: int = 20
    backups_max_age: float = 30.0 * DAY
    backups_max_bytes: int = 10 * GIB
    snapshots_expire: float = 14.0 * DAY
    reflog_expire: float = 90.0 * DAY
    verify_full_every: float = 7.0 * DAY
    packs_seal_at: int = 64 * MIB
    chunks_threshold: int = MIB
    read_tries: int = 3
    compress_level: int = 1
    author: Actor | None = None
    head: str | None = None
    ssh_command: str = "ssh"
    ssh_kai: str = "kai"
    isolation: Isolation = Isolation()

    @classmethod
    def layered(cls, *layers: Layer) -> Settings:
        """The defaults with each layer laid over those before it: user's, home's, flags."""
        values: dict[str, Any] = {}
        isolation = Isolation()
        for layer in layers:
            values |= layer.values
            isolation = layer.isolation.over(isolation)
        return cls(**values, isolation=isolation)


@dataclass(frozen=True)
class Layer:
    """What one text or one command line sets, by the names of `Settings`."""

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    isolation: Isolation = Isolation()


# What a command in a sandbox may use; the least of each is what a shell needs to start.
LIMITS: Final[dict[str, Callable[[Field], Any]]] = {
    "memory": lambda it: it.size(16 * MIB, 1024 * TIB),
    "processes": lambda it: it.integer(1, 4_000_000),
    "open_files": lambda it: it.integer(16, _MANY),
    "written": lambda it: it.size(0, 1024 * TIB),
    "inodes": lambda it: it.integer(0, _MANY),
    "output": lambda it: it.size(0, 1024 * TIB),
    "time": lambda it: it.duration(0.1, _YEARS),
}

# By its dotted key: how each setting is read.
READERS: Final[dict[str, Callable[[Field], Any]]] = {
    "lock.wait": lambda it: it.duration(0, DAY),
    "limits.max_file": lambda it: it.size(1, 1024 * TIB),
    "limits.max_files": lambda it: it.integer(1, _MANY),
    "views.keep": lambda it: it.integer(0, _MANY),
    "views.max_bytes": lambda it: it.size(0, 1024 * TIB),
    "backups.keep": lambda it: it.integer(0, _MANY),
    "backups.max_age": lambda it: it.duration(0, _YEARS),
    "backups.max_bytes": lambda it: it.size(0, 1024 * TIB),
    "snapshots.expire": lambda it: it.duration(0, _YEARS),
    "reflog.expire": lambda it: it.duration(0, _YEARS),
    "verify.full_every": lambda it: it.duration(0, _YEARS),
    "packs.seal_at": lambda it: it.size(64 * KIB, 4 * GIB),
    "chunks.threshold": lambda it: it.size(64 * KIB, 16 * MIB),
    "read.tries": lambda it: it.integer(1, 100),
    "compress.level": lambda it: it.integer(1, 19),
    "author": lambda it: it.checked(Actor.parse),
    "head": lambda it: it.checked(lambda name: check_name("agent", name)),
    "ssh.command": lambda it: it.checked(_program),
    "ssh.kai": lambda it: it.checked(_program),
}


def _program(text: str) -> str:
    """The name or path of a program: no option, and no command line."""
    if not text or text.startswith("-") or not text.isprintable() or text != text.strip() or len(text) > MAX_PROGRAM:
        raise InvalidName(f"{text!r:.100} names no program", hint="give its name, or its path, and nothing else")
    return text


def parse(data: bytes, source: str) -> Layer:
    """Read a ``config.yaml``; InvalidSettings with file and line."""
    return _layer(root(data, source, InvalidSettings))


def parse_flags(flags: Mapping[str, str], source: str = "command line") -> Layer:
    """Read dotted keys and texts, ``{"lock.wait": "10s"}``; InvalidSettings names the key."""
    document: dict[str, Node] = {}
    for key, text in flags.items():
        section, _, name = key.rpartition(".")
        into = document
        if section:
            inner = document.setdefault(section, Node({}, 0)).value
            into = inner if isinstance(inner, dict) else {}
        into[name] = Node(_plain(text), 0)
    return _layer(Field(Node(document, 0), "", source, InvalidSettings))


def _plain(text: str) -> yamltext.Scalar:
    try:
        return yamltext.plain(text)
    except yamltext.Malformed:
        return text


def _layer(document: Field) -> Layer:
    sections = dict.fromkeys(key.split(".")[0] for key in READERS)
    values: dict[str, Any] = {}
    isolation = Isolation()
    for name, it in document.mapping([*sections, "isolation"]).items():
        if name == "isolation":
            isolation = read_isolation(it)
        elif name in READERS:
            values[name] = READERS[name](it)
        else:
            values |= _section(name, it)
    return Layer(document.source, values, isolation)


def _section(name: str, section: Field) -> dict[str, Any]:
    known = [key.split(".")[1] for key in READERS if key.startswith(f"{name}.")]
    return {f"{name}_{key}": READERS[f"{name}.{key}"](it) for key, it in section.mapping(known).items()}


# ---------------------------------------------------------------- isolation


def read_isolation(section: Field) -> Isolation:
    """Read an ``isolation:`` section, of a configuration or of a manifest; the field's error."""
    readers: dict[str, Callable[[Field], Any]] = {
        "enable": Field.boolean,
        "temp_dir": absolute,
        "commit_changes": Field.boolean,
        "rollback_on_error": Field.boolean,
        "require": lambda it: it.choice((FULL, PARTIAL)),
        "env": lambda it: tuple(variable(item) for item in it.items()),
        **LIMITS,
    }
    values = {key: readers[key](it) for key, it in section.mapping(readers).items()}
    return Isolation(**values, given=frozenset(values))


def variable(item: Field) -> str:
    """The name of an environment variable; the field's error."""
    if not re.match(_VARIABLE, item.text()):
        raise item.expected("the name of an environment variable")
    return item.text()


def secret_name(item: Field) -> str:
    """The name of a secret, ``[A-Z][A-Z0-9_]*``, at most 64 characters; the field's error."""
    if not re.match(_CAPITALS, item.text()):
        raise item.expected("the name of a secret", "use A-Z, 0-9 and '_', starting with a letter")
    return item.text()


def absolute(item: Field) -> str:
    """An absolute path without ``..``; the field's error."""
    path = item.text()
    if not path.startswith("/") or ".." in path.split("/"):
        raise item.expected("an absolute path without '..'")
    return path


# ---------------------------------------------------------------- what belongs to this machine alone


@dataclass(frozen=True)
class SecretFile:
    """A secret that stands in a file."""

    path: str


@dataclass(frozen=True)
class SecretVariable:
    """A secret that stands in an environment variable."""

    name: str


@dataclass(frozen=True)
class Local:
    """``.kai/local.yaml``: linked workspaces by agent, and where secrets come from. Never pushed.

    ``inodes`` are those that the linked directories had when they were linked, by agent.
    """

    workspaces: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretFile | SecretVariable] = field(default_factory=dict)
    inodes: Mapping[str, int] = field(default_factory=dict)


def parse_local(data: bytes, source: str) -> Local:
    """Read a ``local.yaml``; InvalidSettings with file and line."""
    parts = root(data, source, InvalidSettings).mapping(("workspaces", "secrets"))
    workspaces = parts["workspaces"].entries() if "workspaces" in parts else {}
    secrets = parts["secrets"].entries() if "secrets" in parts else {}
    links = {_agent(name, item): _link(item) for name, item in workspaces.items()}
    return Local(
        {name: path for name, (path, _) in links.items()},
        {_secret(name, item): _origin(item) for name, item in secrets.items()},
        {name: inode for name, (_, inode) in links.items() if inode is not None},
    )


def _link(item: Field) -> tuple[str, int | None]:
    """The directory, and its inode if that is told."""
    if not isinstance(item.value, dict):
        return absolute(item), None
    parts = item.mapping(("path", "inode"))
    if "path" not in parts:
        raise item.wrong("must have a 'path'")
    return absolute(parts["path"]), parts["inode"].integer(0, _INODES) if "inode" in parts else None


def _agent(name: str, item: Field) -> str:
    return item.named(name).checked(lambda text: check_name("agent", text))


def _secret(name: str, item: Field) -> str:
    return secret_name(item.named(name))


def _origin(item: Field) -> SecretFile | SecretVariable:
    if not isinstance(item.value, dict):  # its value may be the secret itself: not to be shown
        raise item.wrong("must be a mapping with 'file' or 'env'")
    origin = item.mapping(("file", "env"))
    if len(origin) != 1:
        raise item.wrong("must have one of 'file' and 'env'")
    if "file" in origin:
        return SecretFile(absolute(origin["file"]))
    return SecretVariable(variable(origin["env"]))
