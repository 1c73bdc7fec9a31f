"""The house keeps its floors: the table stands in floors.py, the habits in habits.py.

The second half feeds broken samples to the same checks: a check that cannot fail is a defect.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.floors import PACKAGE, Violation, check_imports, cycles, imports, is_door
from tests.architecture.habits import check_habits

ROOT = Path(__file__).resolve().parents[2]

# (module, rule) -> why it may. Starts empty, and had better stay so.
EXCEPTIONS: dict[tuple[str, str], str] = {}


def sources() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def known_modules() -> dict[str, bool]:
    """Every module of the package, and whether it is a package itself."""
    return {module: path.name == "__init__.py" for module, path in sources().items()}


def parsed() -> Iterator[tuple[str, ast.Module]]:
    for module, path in sources().items():
        yield module, ast.parse(path.read_text("utf-8"), str(path))


def all_violations() -> list[Violation]:
    modules = known_modules()
    return sorted(
        violation
        for module, tree in parsed()
        for violation in {*check_imports(tree, module, modules), *check_habits(tree, module)}
    )


def test_there_is_something_to_check() -> None:
    assert sources()


def test_every_module_keeps_the_rules() -> None:
    broken = [str(found) for found in all_violations() if (found.module, found.rule) not in EXCEPTIONS]
    assert not broken, "\n" + "\n".join(broken)


def test_no_circle_of_imports_below_the_doors() -> None:
    modules = known_modules()
    graph = {
        module: {item.target for item in imports(tree, module, modules) if item.top} - {module}
        for module, tree in parsed()
        if not is_door(module)
    }
    circles = [" -> ".join(circle) for circle in cycles(graph)]
    assert not circles, "\n" + "\n".join(circles)


def test_every_exception_has_a_reason_and_is_still_needed() -> None:
    needed = {(found.module, found.rule) for found in all_violations()}
    assert all(reason.strip() for reason in EXCEPTIONS.values())
    assert set(EXCEPTIONS) <= needed


# ------------------------------------------------------------ the checks themselves, on samples

SAMPLE_MODULES = {
    "kaivc": True,
    "kaivc.api": False,
    "kaivc.cli": True,
    "kaivc.cli.main": False,
    "kaivc.errors": False,
    "kaivc.names": False,
    "kaivc.storage": True,
    "kaivc.storage.pack": False,
    "kaivc.storage.store": False,
    "kaivc.refs": False,
    "kaivc.repository": False,
    "kaivc.remotes": True,
    "kaivc.remotes.directory": False,
    "kaivc.remotes.ssh": False,
    "kaivc.sandboxes": True,
    "kaivc.diff": True,
    "kaivc.diff.binary": False,
    "kaivc.diff.matching": False,
    "kaivc.diff.myers": False,
    "kaivc.diff.patch": False,
    "kaivc.diff.text": False,
    "kaivc.ops": True,
    "kaivc.ops.commit": False,
    "kaivc.ops.rollback": False,
}


def import_rules(module: str, source: str) -> list[str]:
    return [found.rule for found in check_imports(ast.parse(source), module, SAMPLE_MODULES)]


def habit_rules(module: str, source: str) -> set[str]:
    return {found.rule for found in check_habits(ast.parse(source), module)}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kaivc.errors", "from kaivc.storage import pack"),
        ("kaivc.errors", "import kaivc"),
        ("kaivc.errors", "from kaivc import open"),
        ("kaivc.errors", "import kaivc.storage.pack as p"),
        ("kaivc.storage.pack", "from kaivc.refs import Refs"),
        ("kaivc.storage.pack", "from .. import refs"),
        ("kaivc.storage.pack", "from ..refs import Refs"),
        ("kaivc.storage", "from ..refs import Refs"),
        ("kaivc.storage.pack", "def later():\n    from kaivc.ops import commit"),
        ("kaivc.storage.pack", "if TYPE_CHECKING:\n    from kaivc.ops.commit import Committed"),
        ("kaivc.storage.pack", "import importlib\nimportlib.import_module('kaivc.api')"),
        ("kaivc.refs", "from kaivc.repository import Repository"),
        ("kaivc.refs", "from kaivc.wire import Message"),
        ("kaivc.refs", "from kaivc import remotes"),
        ("kaivc.remotes.ssh", "from kaivc.remotes.directory import Directory"),
        ("kaivc.remotes.ssh", "from .directory import Directory"),
        ("kaivc.remotes.ssh", "from . import directory"),
        ("kaivc.remotes.ssh", "import kaivc.sandboxes"),
        ("kaivc.remotes", "import kaivc.sandboxes"),
        ("kaivc.diff.text", "from kaivc.diff.binary import summary"),
        ("kaivc.diff.text", "from kaivc.diff.patch import patch"),
        ("kaivc.diff.matching", "from kaivc.diff.text import unified"),
        ("kaivc.diff.myers", "from kaivc.diff.matching import changes"),
        ("kaivc.ops.commit", "from kaivc.ops.rollback import rollback"),
        ("kaivc.ops.commit", "from kaivc.ops import helper"),
        ("kaivc.ops", "from kaivc.ops import commit"),
        ("kaivc.ops.commit", "from kaivc.api import Home"),
        ("kaivc.ops.commit", "from kaivc.attic.room import thing"),
    ],
)
def test_an_import_up_or_sideways_is_found(module: str, source: str) -> None:
    assert import_rules(module, source) == ["floors"]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kaivc.names", "from kaivc.errors import KaiError"),
        ("kaivc.storage.store", "from kaivc.storage.pack import Pack\nfrom kaivc.storage import pack"),
        ("kaivc.storage.store", "from . import pack\nfrom .pack import Pack\nfrom .. import errors"),
        ("kaivc.repository", "from kaivc.refs import Refs\nfrom kaivc import storage, errors"),
        ("kaivc.remotes.ssh", "from kaivc.remotes import Remote\nfrom kaivc.refs import Refs"),
        ("kaivc.diff.text", "from kaivc.diff.matching import changes"),
        ("kaivc.diff.patch", "from kaivc.diff.text import unified\nfrom kaivc.diff import binary"),
        ("kaivc.remotes", "def pick():\n    from kaivc.remotes import ssh"),
        ("kaivc.ops.commit", "from kaivc.remotes.ssh import Ssh\nfrom kaivc.repository import Repository"),
        ("kaivc.cli.main", "from kaivc import api, ops\nimport kaivc"),
        ("kaivc", "from kaivc.api import Home"),
        ("kaivc.refs", "import os, dulwich.repo, kaivcx\nfrom importlib import import_module"),
    ],
)
def test_an_import_down_is_allowed(module: str, source: str) -> None:
    assert import_rules(module, source) == []


@pytest.mark.parametrize("module", ["kaivc.attic", "kaivc.attic.room", "kaivc.storages"])
def test_a_module_without_a_floor_is_found(module: str) -> None:
    assert import_rules(module, "") == ["placed"]


def test_a_circle_is_found() -> None:
    assert list(cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == [("b", "c", "b")]
    assert not list(cycles({"a": {"b", "c"}, "b": {"c"}}))


def test_an_import_inside_a_function_makes_no_circle() -> None:
    late = "def f():\n    import kaivc.refs\nif TYPE_CHECKING:\n    import kaivc.refs\n"
    found = list(imports(ast.parse(late + "import kaivc.errors"), "kaivc.names", SAMPLE_MODULES))
    assert {(item.target, item.top) for item in found} == {("kaivc.refs", False), ("kaivc.errors", True)}


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("environment", "import os\nos.environ['A']"),
        ("environment", "import os as o\no.environ.get('A')"),
        ("environment", "from os import environ"),
        ("environment", "from os import getenv as g"),
        ("environment", "import os\nos.getenv('A')"),
        ("environment", "import os\ngetattr(os, 'environ')"),
        ("environment", "import sys\nsys.argv[1]"),
        ("environment", "import os.path\nos.path.expanduser('~')"),
        ("environment", "from pathlib import Path\nPath.home()"),
        ("terminal", "print('x')"),
        ("terminal", "show = print"),
        ("terminal", "input()"),
        ("terminal", "import sys\nsys.stderr.write('x')"),
        ("terminal", "import logging\nlogging.basicConfig()"),
        ("wall clock", "import time\ntime.time()"),
        ("wall clock", "from time import time_ns as now"),
        ("wall clock", "def f(clock=time.time): ...\nimport time"),
        ("wall clock", "import time\ntime.gmtime()"),
        ("wall clock", "import datetime\ndatetime.datetime.now(datetime.UTC)"),
        ("wall clock", "from datetime import datetime as dt\ndt.utcnow()"),
        ("wall clock", "from datetime import datetime\ndatetime.now()"),
        ("wall clock", "from datetime import date\ndate.today()"),
        ("floors", "import importlib\nimportlib.import_module(name)"),
    ],
)
def test_the_outside_world_below_the_doors_is_found(rule: str, source: str) -> None:
    assert rule in habit_rules("kaivc.refs", source)
    assert rule in habit_rules("kaivc.ops.commit", source)
    assert habit_rules("kaivc.cli.main", source) == set()


OS_WRITES = """
    write pwrite fsync fdatasync rename replace link symlink unlink remove rmdir mkdir makedirs chmod fchmod
    utime truncate ftruncate
"""


@pytest.mark.parametrize(
    "source",
    [
        "open('f', 'w')",
        "open('f', mode='ab')",
        "open('f', 'r+b')",
        "open('f', mode)",
        "import io\nio.open('f', 'xb')",
        "import os\nos.fdopen(3, 'wb')",
        "import tarfile\ntarfile.open('f', 'w:gz')",
        "import zipfile\nzipfile.ZipFile('f').open('member', 'w')",
        "from pathlib import Path\nPath('f').open('w')",
        "from pathlib import Path\nPath('f').open(mode='r+')",
        "from pathlib import Path\nPath('f').write_text('x')",
        "from pathlib import Path\nPath.write_bytes(p, b'x')",
        "p.write_bytes(b'x')",
        "p.touch()",
        "p.parent.mkdir()",
        "p.unlink()",
        "p.symlink_to(q)",
        "import os\nos.open('f', os.O_WRONLY)",
        "import os\nos.open('f', os.O_RDWR | os.O_CLOEXEC)",
        "import os\nos.open('f', os.O_RDONLY | os.O_CREAT)",
        "import os\nos.open('f', flags=os.O_APPEND)",
        "import os\nos.open('f', flags)",
        "import os\nFLAGS = os.O_RDONLY | os.O_TRUNC\nos.open('f', FLAGS)",
        "import os\nopen('f', opener=os.open)",
        *(f"import os\nos.{name}(a, b)" for name in OS_WRITES.split()),
        "from os import replace as swap\nswap(a, b)",
        "import os\nwrite = os.write",
        "import os\ngetattr(os, 'rename')(a, b)",
        *(f"import shutil\nshutil.{name}(a, b)" for name in ("copy", "copy2", "copyfile", "copytree")),
        "import shutil\nshutil.move(a, b)",
        "from shutil import rmtree",
        "import fcntl\nfcntl.flock(fd, fcntl.LOCK_EX)",
    ],
)
def test_a_durable_write_outside_vfs_is_found(source: str) -> None:
    assert habit_rules("kaivc.storage.pack", source) == {"durable write"}
    assert habit_rules("kaivc.cli.main", source) == {"durable write"}
    assert habit_rules("kaivc.vfs", source) == set()


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("pickle", "import pickle"),
        ("pickle", "from pickle import loads"),
        ("pickle", "def f():\n    import marshal"),
        ("shell", "import subprocess\nsubprocess.run('x', shell=True)"),
        ("shell", "run('x', shell=flag)"),
        ("shell", "import os\nos.system('x')"),
        ("yaml", "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)"),
        ("yaml", "import yaml\nyaml.unsafe_load(text)"),
        ("yaml", "from yaml import FullLoader"),
        ("yaml", "import yaml\nclass L(yaml.Loader): ..."),
        ("eval", "eval('1')"),
        ("eval", "exec('x = 1')"),
        ("eval", "import builtins\nbuiltins.exec('x = 1')"),
    ],
)
def test_what_is_forbidden_everywhere_is_found(rule: str, source: str) -> None:
    for module in ("kaivc.vfs", "kaivc.refs", "kaivc.cli.main", "kaivc.api"):
        assert rule in habit_rules(module, source)


@pytest.mark.parametrize(
    "source",
    [
        "open('f')\nopen('f', 'rb')\nopen('f', mode='r', encoding='utf-8')",
        "import os\nos.open('f', os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)",
        "import os\nFLAGS = os.O_RDONLY | os.O_DIRECTORY\nos.open('f', FLAGS)",
        "import os\nos.read(fd, 1)\nos.stat(p)\nos.listdir(p)\nos.path.join(a, b)",
        "from pathlib import Path\nPath('f').open()\nPath('f').read_bytes()",
        "from kaivc import vfs\nvfs.mkdir(p)\nvfs.unlink(p)",
        "self.vfs.mkdir(p)\nhome.open('agents')\nstore.open('wxa-agent')",
        "text.replace(a, b)\nitems.remove(x)\nclock.now()\ntime.time()",
        "import time\ntime.monotonic()\ntime.gmtime(0)",
        "import datetime\ndatetime.datetime.fromtimestamp(0, datetime.UTC)",
        "import yaml\nyaml.safe_load(text)\nclass L(yaml.SafeLoader): ...",
        "import subprocess\nsubprocess.run(['x'], shell=False)",
        "re.compile('x')\nmodel.eval()\ncursor.execute('x')",
        "import zstandard\nzstandard.open\nimport io\nio.BytesIO()",
    ],
)
def test_what_is_allowed_is_left_alone(source: str) -> None:
    assert habit_rules("kaivc.storage.pack", source) == set()
