"""The table of floors, and who may import whom. Edit the table here when a room is added.

Every module of the package must stand in the table. A module imports from the floors below its own, and on
its own floor only as far as the floor's rule goes.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

PACKAGE = "kaivc"


class Own(Enum):
    """How far a module may import from its own floor."""

    ANY = "any module of the floor"
    EARLIER = "only rooms listed before it"
    SOCKET = "only its folder's face (__init__) and parts; kinds never import each other (see SOCKETS)"
    NEVER = "none"


@dataclass(frozen=True)
class Floor:
    """One floor: its rooms (a file, or a folder with all that is in it) and its rule for itself."""

    name: str
    rooms: tuple[str, ...]
    own: Own


# From the ground up. "" is kaivc/__init__.py.
FLOORS = (
    Floor(
        "ground", ("records", "errors", "names", "ports", "layout", "yamltext", "fields", "settings", "vfs"), Own.ANY
    ),
    Floor("bytes", ("storage",), Own.ANY),
    Floor(
        "names and meaning",
        (
            "refs",
            "links",
            "repository",
            "patterns",
            "manifest",
            "leases",
            "ignore",
            "trees",
            "paths",
            "dirtree",
            "materialise",
            "sqlitefiles",
            "sinks",
            "roots",
            "reading",
            "capture",
            "plans",
            "workspace",
            "versions",
            "standing",
            "adminlog",
            "retention",
            "revisions",
            "findings",
            "drift",
            "keeping",
            "donor",
            "views",
            "inforce",
            "relocation",
            "walk",
            "inspection",
            "settled",
            "quarantine",
            "healing",
            "stock",
            "recovery",
            "freshpacks",
            "rebuilding",
            "repairing",
            "report",
            "recheck",
            "recount",
            "intents",
            "machine",
            "mounts",
            "health",
            "movement",
            "reversal",
            "trials",
            "scratch",
            "layer",
            "snapshots",
            "promotion",
            "making",
            "copying",
            "forking",
            "folders",
            "wire",
            "dialogue",
            "remotelist",
            "parcels",
            "incoming",
            "receiving",
            "landing",
            "pktline",
            "gitarrival",
            "gitdeltas",
            "gitpacks",
            "reencoding",
            "roles",
            "access",
            "serving",
            "gitrefs",
            "gitserving",
            "gitreceiving",
            "bundles",
        ),
        Own.EARLIER,
    ),
    Floor("sockets", ("diff", "remotes", "sandboxes", "environments", "trust"), Own.SOCKET),
    Floor("verbs", ("ops",), Own.NEVER),
    Floor("doors", ("", "__main__", "opening", "agent", "api", "cli", "server"), Own.ANY),
)

DOORS = len(FLOORS) - 1


@dataclass(frozen=True)
class Socket:
    """The files of a socket's folder that are no kind of it; each tuple from the ground up.

    `parts` are what kinds are made of, `joins` are made of kinds. All other files are kinds.
    """

    parts: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()


SOCKETS = {
    "remotes": Socket(
        parts=(
            "base",
            "homes",
            "tracking",
            "planning",
            "following",
            "credentials",
            "gitlines",
            "gitpipes",
            "githttp",
            "gitnames",
        )
    ),
    "diff": Socket(parts=("model", "quoting", "myers", "matching"), joins=("patch",)),
    "sandboxes": Socket(
        parts=(
            "base",
            "kernel",
            "relay",
            "seccomp",
            "looking",
            "rootplan",
            "cgroups",
            "uids",
            "copies",
            "watch",
            "proof",
            "child",
            "command",
            "bwrap",
            "talk",
            "confine",
            "rooting",
            "inside",
            "keeper",
        )
    ),
}


@dataclass(frozen=True, order=True)
class Violation:
    """One broken rule at one line of one module."""

    module: str
    line: int
    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.rule}: {self.what}"


@dataclass(frozen=True)
class Place:
    """Where a module stands: its floor, and the number of its room on that floor."""

    floor: int
    room: int


def place(module: str) -> Place | None:
    """The place of a module such as `kaivc.storage.pack`; None when the table has no room for it."""
    head = module.removeprefix(PACKAGE).lstrip(".").split(".")[0]
    for number, floor in enumerate(FLOORS):
        if head in floor.rooms:
            return Place(number, floor.rooms.index(head))
    return None


def is_door(module: str) -> bool:
    """Whether a module may read argv and env, print, and know the time."""
    spot = place(module)
    return spot is not None and spot.floor == DOORS


@dataclass(frozen=True)
class Import:
    """One module of the package that another one imports; `top` when that happens as it is loaded."""

    target: str
    line: int
    top: bool


def imports(tree: ast.Module, module: str, modules: Mapping[str, bool]) -> Iterator[Import]:
    """What a module imports of the package, wherever in its text.

    `modules` holds every known module, and whether it is a package: it tells `from kaivc.storage import pack`
    (a module) from `from kaivc.storage import PackError` (a name in one).
    """
    late = {id(node) for scope in ast.walk(tree) if _runs_later(scope) for node in ast.walk(scope)}
    for node in ast.walk(tree):
        for name in _imported_names(node, module, package=modules.get(module, False)):
            if name == PACKAGE or name.startswith(PACKAGE + "."):
                yield Import(_nearest(name, modules), getattr(node, "lineno", 0), id(node) not in late)


def _runs_later(node: ast.AST) -> bool:
    """Whether what stands in a node runs after its module is loaded, or never."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def _imported_names(node: ast.AST, module: str, *, package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            kept = parts[: len(parts) - node.level + package]
            base = ".".join([*kept, *([node.module] if node.module else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"} and node.args:
        first = node.args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


def _called(node: ast.Call) -> str:
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _nearest(name: str, modules: Mapping[str, bool]) -> str:
    """The module that a dotted name lies in; the name itself when none does."""
    parts = name.split(".")
    for length in range(len(parts), 1, -1):
        if (prefix := ".".join(parts[:length])) in modules:
            return prefix
    # No module: a name of kaivc/__init__.py itself, or a room that is not there (yet).
    return PACKAGE if name.count(".") <= 1 and place(name) is None else name


def check_imports(tree: ast.Module, module: str, modules: Mapping[str, bool]) -> Iterator[Violation]:
    """The imports of one module that the floors forbid; a module without a place is one violation."""
    spot = place(module)
    if spot is None:
        yield Violation(module, 1, "placed", "has no floor: give it a room in tests/architecture/floors.py")
        return
    for item in imports(tree, module, modules):
        if item.target != module and (why := _refusal(module, spot, item.target, modules)):
            yield Violation(module, item.line, "floors", f"imports {item.target}: {why}")


def _refusal(module: str, spot: Place, target: str, modules: Mapping[str, bool]) -> str:
    goal = place(target)
    if goal is None:
        return "it has no floor"
    if goal.floor > spot.floor:
        return f"up from {FLOORS[spot.floor].name} to {FLOORS[goal.floor].name}"
    if goal.floor < spot.floor:
        return ""
    own = FLOORS[spot.floor].own
    allowed = {
        Own.ANY: True,
        Own.EARLIER: goal.room <= spot.room,
        Own.SOCKET: goal.room == spot.room and _fits_socket(module, target, modules),
        Own.NEVER: False,
    }[own]
    return "" if allowed else f"from its own floor a module may import {own.value}"


def _fits_socket(module: str, target: str, modules: Mapping[str, bool]) -> bool:
    """Whether a file of a socket's folder may import another of the same folder."""
    if any(modules.get(each, False) and each.count(".") == 1 for each in (module, target)):
        return True  # the face
    _, folder, own, *_ = module.split(".")
    other = target.split(".")[2]
    socket = SOCKETS.get(folder, Socket())
    return own == other or _rank(other, socket) < _rank(own, socket)


def _rank(file: str, socket: Socket) -> int:
    if file in socket.parts:
        return socket.parts.index(file)
    return len(socket.parts) + (1 + socket.joins.index(file) if file in socket.joins else 0)


def cycles(graph: Mapping[str, set[str]]) -> Iterator[tuple[str, ...]]:
    """Circles among imports that happen as modules are loaded; each is found at least once."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if module in path:
            yield (*path[path.index(module) :], module)
        elif module not in done:
            for target in sorted(graph.get(module, ())):
                yield from visit(target, (*path, module))
            done.add(module)

    for module in sorted(graph):
        yield from visit(module, ())
