"""What every test stands on: a home of its own, no settings from outside, the tools, a second uid."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
IN_CI = bool(os.environ.get("CI"))

settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("dev", deadline=None, print_blob=True)
settings.load_profile("ci" if IN_CI else "dev")

AUTHOR = {
    "GIT_AUTHOR_NAME": "Test Author",
    "GIT_AUTHOR_EMAIL": "author@example.invalid",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05+00:00",
}
COMMITTER = {name.replace("AUTHOR", "COMMITTER"): value for name, value in AUTHOR.items()}

# What a test must not inherit: any of it would change what kai or git does.
_FOREIGN = ("KAI_", "GIT_", "XDG_", "SSH_", "LC_", "PYTHONPATH", "PYTHONWARNINGS", "SOURCE_DATE_EPOCH")
_FOREIGN_NAMES = (
    "NO_COLOR",
    "FORCE_COLOR",
    "CLICOLOR",
    "COLUMNS",
    "LINES",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LANG",
)


@pytest.fixture(scope="session", autouse=True)
def _no_signal_is_ignored() -> None:
    """What the programs that a test starts take for granted, where a shell's background job or nohup started this.

    Who ignores a signal hands that on; who handles it does not.
    """
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:  # which Python itself ignores
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)


@pytest.fixture(autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test: its own HOME, git without configuration, nothing of the developer's environment."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in _FOREIGN_NAMES:
            monkeypatch.delenv(name)
    ours = {
        **AUTHOR,
        **COMMITTER,
        "HOME": str(home),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    time.tzset()
    old_umask = os.umask(0o022)
    yield home
    os.umask(old_umask)


def require_tool(name: str) -> str:
    """The path of a tool. Without it the test is skipped, but fails in CI, which installs every tool."""
    # Servers such as sshd lie in sbin, which an ordinary user's PATH leaves out.
    path = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if path is not None:
        return path
    text = f"{name} is not installed: run scripts/install-test-tools"
    if IN_CI:
        pytest.fail(text)
    pytest.skip(text)


@dataclass(frozen=True)
class Ids:
    """An ordinary user, for whom permissions count."""

    uid: int
    gid: int


@pytest.fixture
def other_uid() -> Ids:
    """A second, ordinary uid: as root, permission tests pass for nothing. Only root can become it."""
    if os.geteuid() != 0:
        text = "only root can run something as another uid"
        if IN_CI:
            pytest.fail(text)
        pytest.skip(text)
    return Ids(65534, 65534)


def run_as(
    uid: int | Ids,
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60,
    **options: Any,
) -> subprocess.CompletedProcess[str]:
    """A command run to its end as another uid, with no other groups, and its text caught.

    pytest's own tmp_path is closed to other uids: work in `public_tmp`, and run `public_python`.
    """
    ids = uid if isinstance(uid, Ids) else Ids(uid, uid)
    inherited = dict(os.environ if env is None else env)
    # It could not write the coverage data, and would say so on stderr.
    clean = {name: value for name, value in inherited.items() if not name.startswith("COVERAGE_")}
    if not options.keys() & {"stdout", "stderr", "capture_output"}:
        options["capture_output"] = True
    return subprocess.run(
        argv,
        user=ids.uid,
        group=ids.gid,
        extra_groups=[],
        env=clean,
        timeout=timeout,
        text=True,
        check=options.pop("check", False),
        **options,
    )


def without_privileges(argv: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A command with this uid but without root's powers: the permission bits of its own files count."""
    command = [os.fspath(arg) for arg in argv]
    if os.geteuid() != 0:
        return command
    return [require_tool("setpriv"), "--bounding-set=-all", "--inh-caps=-all", *command]


@pytest.fixture
def public_tmp() -> Iterator[Path]:
    """A directory that every uid may enter; what a test puts there for another uid, it chowns."""
    path = Path(tempfile.mkdtemp(prefix="kai-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


# Not for another uid: what only development needs, and is large.
_DEVELOPMENT = shutil.ignore_patterns(
    "mypy*", "ruff*", "pip*", "setuptools*", "hypothesis*", "coverage*", "hatch*", "_kaivc*", "__pycache__"
)


@pytest.fixture(scope="session")
def public_python() -> Iterator[list[str]]:
    """The start of a command: an interpreter with kaivc that every uid can run.

    The checkout, its environment or the interpreter may lie in a directory that others cannot enter; so the
    code is a copy, and the interpreter is the system's when this one is out of reach.
    """
    here = Path(tempfile.mkdtemp(prefix="kai-test-python-"))
    shutil.copytree(sysconfig.get_path("platlib"), here / "site", ignore=_DEVELOPMENT)
    shutil.copytree(ROOT / "kaivc", here / "site" / "kaivc", ignore=_DEVELOPMENT)
    subprocess.run(["chmod", "-R", "a+rX", here], check=True)
    yield ["env", f"PYTHONPATH={here / 'site'}", "PYTHONDONTWRITEBYTECODE=1", _interpreter_for_all()]
    shutil.rmtree(here)


def _interpreter_for_all() -> str:
    this = f"{sys.version_info.major}.{sys.version_info.minor}"
    script = "import sys; print('%d.%d' % sys.version_info[:2])"
    for path in (os.path.realpath(sys.executable), f"/usr/bin/python{this}"):
        try:
            result = run_as(65534, [path, "-I", "-c", script], cwd="/")
        except OSError:
            continue
        if result.stdout.strip() == this:
            return path
    return require_tool(f"a python{this} that every uid can run")
