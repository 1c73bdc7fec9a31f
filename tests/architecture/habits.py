"""What a module may not touch: the outside world below the doors, durable writes outside vfs, and traps.

Names are followed through `import ... as` and `from ... import`, and a mere mention counts:
`write = os.write` is found just as a call of os.write is.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.architecture.floors import PACKAGE, Violation, is_door

# The one module that writes durably, and the one whose writes end with a process: in a sandbox, or for the kernel.
WRITERS = {f"{PACKAGE}.vfs", f"{PACKAGE}.sandboxes.kernel"}

# Dotted names that only a door may mention; a name covers what lies in it (os.environ.get).
DOORS_ONLY = {
    "environment": {
        "os.environ",
        "os.environb",
        "os.getenv",
        "os.getenvb",
        "os.putenv",
        "os.unsetenv",
        "os.path.expanduser",
        "os.path.expandvars",
        "pathlib.Path.home",
        "sys.argv",
    },
    "terminal": {
        "print",
        "input",
        "sys.stdin",
        "sys.stdout",
        "sys.stderr",
        "logging.basicConfig",
        "logging.config",
    },
    "wall clock": {
        "time.time",
        "time.time_ns",
        "time.clock_gettime",
        "time.clock_gettime_ns",
        "time.ctime",
        "time.gmtime",
        "time.localtime",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
    },
}

_OS_WRITES = """
    chmod chown copy_file_range fchmod fchown fdatasync fsync ftruncate lchown link makedirs mkdir mkfifo
    mknod posix_fallocate pwrite pwritev remove removedirs removexattr rename renames replace rmdir sendfile
    setxattr symlink sync truncate unlink utime write writev
"""
_SHUTIL_WRITES = """
    chown copy copy2 copyfile copymode copystat copytree make_archive move rmtree unpack_archive
"""
WRITES = (
    {f"os.{name}" for name in _OS_WRITES.split()}
    | {f"shutil.{name}" for name in _SHUTIL_WRITES.split()}
    | {"fcntl.flock", "fcntl.lockf"}
)

# Methods that write whatever they belong to; pathlib's, as a rule. `....vfs.mkdir()` is the writer's own.
_METHODS = "chmod hardlink_to lchmod mkdir rmdir symlink_to touch unlink write_bytes write_text"
WRITING_METHODS = frozenset(_METHODS.split())

_OPENERS = "open io.open os.fdopen gzip.open bz2.open lzma.open codecs.open tarfile.open"
OPENERS = frozenset(_OPENERS.split())
_FLAGS = "O_RDONLY O_CLOEXEC O_DIRECTORY O_NOATIME O_NOCTTY O_NOFOLLOW O_NONBLOCK O_PATH"
READING_FLAGS = frozenset(_FLAGS.split())

_YAML = """
    load load_all full_load full_load_all unsafe_load unsafe_load_all YAMLObject
    Loader FullLoader UnsafeLoader CLoader CFullLoader CUnsafeLoader
"""
FORBIDDEN = {
    "pickle": {"pickle", "_pickle", "cPickle", "dill", "marshal", "shelve"},
    "shell": {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"},
    "yaml": {f"yaml.{name}" for name in _YAML.split()},
    "eval": {"eval", "exec", "builtins.eval", "builtins.exec"},
}

BUILTINS = {"print", "input", "eval", "exec", "open", "__import__", "getattr"}
CLOCK_METHODS = {"gmtime", "localtime", "ctime"}  # of a given time they are only arithmetic
_MODE = re.compile(r"[rwaxbtU+|:gzx2*]{1,8}")


@dataclass(frozen=True)
class Mention:
    """A dotted name, resolved through the imports, where it stands."""

    name: str
    node: ast.AST


class Names:
    """What the names of one module mean: its imports, and its constants."""

    def __init__(self, tree: ast.Module) -> None:
        self.aliases = dict(_aliases(tree))
        self.constants = dict(_constants(tree))

    def dotted(self, node: ast.AST) -> str:
        """`os.environ` for `o.environ` after `import os as o`; "" for what no import or builtin names."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id, node.id if node.id in BUILTINS else "")
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        if isinstance(node, ast.Call) and self.dotted(node.func) == "getattr" and len(node.args) > 1:
            base, name = self.dotted(node.args[0]), node.args[1]
            if base and isinstance(name, ast.Constant) and isinstance(name.value, str):
                return f"{base}.{name.value}"
        return ""


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (root, root)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                yield alias.asname or alias.name, f"{base}.{alias.name}"


def _constants(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.expr):
                yield target.id, value


def check_habits(tree: ast.Module, module: str) -> set[Violation]:
    """Everything that one module mentions or calls and may not."""
    return set(_violations(tree, module))


def _violations(tree: ast.Module, module: str) -> Iterator[Violation]:
    names = Names(tree)
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for mention in _mentions(tree, names):
        call = called.get(id(mention.node))
        for rule, what in _broken(mention.name, call, names, module):
            yield Violation(module, getattr(mention.node, "lineno", 0), rule, what)
    for call in called.values():
        for rule, what in _broken_calls(call, names, module):
            yield Violation(module, call.lineno, rule, what)


def _mentions(tree: ast.Module, names: Names) -> Iterator[Mention]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Mention(alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from (Mention(f"{node.module}.{alias.name}", node) for alias in node.names)
        elif name := names.dotted(node):
            yield Mention(name, node)


def _broken(name: str, call: ast.Call | None, names: Names, module: str) -> Iterator[tuple[str, str]]:
    for rule, forbidden in FORBIDDEN.items():
        if listed := _listed(name, forbidden):
            yield rule, listed
    if not is_door(module):
        for rule, forbidden in DOORS_ONLY.items():
            if (listed := _listed(name, forbidden)) and not _only_arithmetic(name, call):
                yield rule, f"{listed} below the doors"
    if module not in WRITERS:
        if listed := _listed(name, WRITES):
            yield "durable write", listed
        elif name == "os.open" and not (call and _reads_only(call, names)):
            yield "durable write", "os.open with flags that are not plainly for reading"
        elif name in OPENERS and call is not None and _writing_mode(call):
            yield "durable write", f"{name} with a mode that is not plainly for reading"


def _listed(name: str, listed: set[str]) -> str:
    """The entry of a list that a name is, or lies in: os.environ for os.environ.get."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return next((prefix for prefix in prefixes if prefix in listed), "")


def _only_arithmetic(name: str, call: ast.Call | None) -> bool:
    return name.removeprefix("time.") in CLOCK_METHODS and call is not None and bool(call.args)


def _broken_calls(call: ast.Call, names: Names, module: str) -> Iterator[tuple[str, str]]:
    shell = _keyword(call, "shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        yield "shell", "shell= that is not False"
    name = names.dotted(call.func)
    by_name = name in {"importlib.import_module", "__import__"}
    if by_name and not is_door(module) and not (call.args and isinstance(call.args[0], ast.Constant)):
        yield "floors", "an import by a computed name, below the doors"
    followed = name and not name.startswith("pathlib.")
    if module not in WRITERS and isinstance(call.func, ast.Attribute) and not followed:
        method, owner = call.func.attr, ast.unparse(call.func.value)
        if method in WRITING_METHODS and not owner.endswith("vfs"):
            yield "durable write", f".{method}()"
        elif method == "open" and _method_opens_for_writing(call):
            yield "durable write", ".open() with a writing mode"


def _reads_only(call: ast.Call, names: Names) -> bool:
    flags = call.args[1] if len(call.args) > 1 else _keyword(call, "flags")
    return flags is not None and _are_reading_flags(flags, names)


def _are_reading_flags(node: ast.expr, names: Names) -> bool:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _are_reading_flags(node.left, names) and _are_reading_flags(node.right, names)
    if isinstance(node, ast.Name) and node.id in names.constants:
        return _are_reading_flags(names.constants[node.id], names)
    return names.dotted(node).removeprefix("os.") in READING_FLAGS


def _writing_mode(call: ast.Call) -> bool:
    """Whether an open() may write: its mode says so, or is not written out."""
    mode = call.args[1] if len(call.args) > 1 else _keyword(call, "mode")
    if mode is None:
        return False
    return not (isinstance(mode, ast.Constant) and isinstance(mode.value, str)) or _writes(mode.value)


def _method_opens_for_writing(call: ast.Call) -> bool:
    candidates = [*call.args[:2], _keyword(call, "mode")]
    return any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _MODE.fullmatch(node.value) is not None
        and _writes(node.value)
        for node in candidates
    )


def _writes(mode: str) -> bool:
    return bool(set(mode) & set("wax+"))


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
