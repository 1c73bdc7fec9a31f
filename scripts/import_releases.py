"""Imports successive real releases of an agent package as versions, rolls through them, and compares every byte.

Downloads wheels with pip (or takes those of --wheels), commits each wheel's files as one version of one agent, then
rolls back and forth through all of them. After each rollback the workspace, the version's view and `current` must hold
the wheel's own files, byte for byte, and nothing else. Exits with 1 on any difference, with 2 if it could not begin.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import kaivc
from kaivc.api import Agent
from kaivc.errors import KaiError
from kaivc.vfs import Vfs

MAX_UNPACKED = 512 << 20
FEWEST = 2
META = "snapshot_meta.json"
FINAL = re.compile(r"\d+(\.\d+)*\Z")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]

Files = Mapping[str, tuple[bool, bytes]]  # by path: whether it is executable, and its bytes


class CannotBegin(Exception):
    """There is nothing to import: no index, no such package, an unsafe wheel."""


@dataclass(frozen=True)
class Release:
    """One wheel, the number it says, and the number it gets."""

    number: str
    version: str
    wheel: Path
    files: Files

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(len(data) for _, data in self.files.values())


# ---------------------------------------------------------------- releases


def key(number: str) -> tuple[int, ...]:
    """What release numbers are ordered by."""
    return tuple(int(part) for part in re.findall(r"\d+", number))


def finals(numbers: Sequence[str], count: int) -> list[str]:
    """The newest final releases, oldest of them first."""
    found = sorted({number for number in numbers if FINAL.match(number)}, key=key)
    if len(found) < FEWEST:
        raise CannotBegin(f"found {len(found)} final releases, and needs {FEWEST} to roll back")
    return found[-count:]


def published(package: str) -> list[str]:
    """The numbers that the index lists; pip's words for them differ between its releases."""
    listed = _pip("index", "versions", package)
    match = re.search(r"Available versions: (.*)", listed)
    if match is None:
        listed = _pip("download", "--no-deps", f"{package}==")
        match = re.search(r"from versions: ([^)]*)\)", listed)
    if match is None:
        raise CannotBegin(f"the package index lists no versions of {package}:\n{listed.strip()[-500:]}")
    return [number.strip() for number in match[1].split(",")]


def _pip(*words: str) -> str:
    done = subprocess.run([*PIP, *words], capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    return done.stdout + done.stderr


def download(package: str, numbers: Sequence[str], to: Path) -> None:
    """Fetch the wheel of each release, without what it depends on."""
    for number in numbers:
        wanted = f"{package}=={number}"
        command = [*PIP, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(to), wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotBegin(f"pip could not download {wanted}:\n{done.stderr.strip()[-500:]}")


def wheels(package: str, directory: Path) -> dict[str, Path]:
    """The wheels of a package in a directory, by release number."""
    found: dict[str, Path] = {}
    for path in sorted(directory.glob("*.whl")):
        name, number, *_ = path.name.split("-")
        if _normal(name) == _normal(package):
            found.setdefault(number, path)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def semantic(number: str) -> str:
    """A release number as a semantic version: itself, or padded, or with what is too long in the last part."""
    parts = list(key(number))
    parts += [0] * (3 - len(parts))
    major, minor, patch, *more = parts
    for part in more:
        patch = patch * 1000 + part
    return f"{major}.{minor}.{patch}"


# ---------------------------------------------------------------- wheels


def unpacked(wheel: Path) -> Files:
    """The files of a wheel; CannotBegin for a member that has no business in one."""
    files: dict[str, tuple[bool, bytes]] = {}
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if not member.orig_filename.endswith("/")]
        if sum(member.file_size for member in members) > MAX_UNPACKED:
            raise CannotBegin(f"{wheel.name} unpacks to more than {MAX_UNPACKED >> 20} MiB")
        for member in members:
            name = checked(wheel, member)
            if name in files:
                raise CannotBegin(f"{wheel.name} holds {name!r} twice")
            files[name] = bool(member.external_attr >> 16 & 0o100), archive.read(member)
    return files


def checked(wheel: Path, member: zipfile.ZipInfo) -> str:
    """The name of a member, if it is a plain file that stays in its directory."""
    name = member.orig_filename  # `filename` is cut at a NUL
    parts = PurePosixPath(name).parts
    mode = member.external_attr >> 16
    unsafe = not name or name.startswith("/") or "\\" in name or "\0" in name or ":" in name
    if unsafe or ".." in parts or "/".join(parts) != name:
        raise CannotBegin(f"{wheel.name} holds the unsafe name {name!r}")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise CannotBegin(f"{wheel.name} holds {name!r}, which is no plain file")
    return name


def replace(directory: Path, files: Files) -> None:
    """Let a directory hold these files and nothing else."""
    for child in directory.iterdir():
        Vfs().remove_tree(str(child))
    for name, (executable, data) in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if executable else 0o644)


def held(directory: Path) -> Files:
    """The files below a directory; whatever is no plain file is held for none of a wheel's."""
    found = {}
    for path in directory.rglob("*"):
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            data = path.read_bytes() if stat.S_ISREG(mode) else b"(no plain file)"
            found[path.relative_to(directory).as_posix()] = bool(mode & 0o100), data
    return found


# ---------------------------------------------------------------- the run


def differences(where: str, found: Files, wanted: Files) -> Iterator[str]:
    """A line for each file that is not as the wheel has it."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in wanted:
            yield f"{where}: {name} is there, and is not of the wheel"
        elif name not in found:
            yield f"{where}: {name} is missing"
        elif found[name] != wanted[name]:
            what = "bytes" if found[name][1] != wanted[name][1] else "x bit"
            yield f"{where}: {name} differs in its {what}"


def compare(agent: Agent, base: Path, release: Release) -> list[str]:
    """What differs between the wheel and the workspace, the view and `current`."""
    link = base / "current"
    faults = list(differences("workspace", held(agent.workspace), release.files))
    for where, path in (("view", base / "versions" / f"v{release.version}"), ("current", link.resolve())):
        found = dict(held(path))
        if found.pop(META, None) is None:
            faults.append(f"{where}: {META} is missing")
        faults += differences(where, found, release.files)
    if os.readlink(link) != f"versions/v{release.version}":
        faults.append(f"current points to {os.readlink(link)}")
    if agent.current.version != release.version:
        faults.append(f"the catalog says v{agent.current.version} is in force")
    return faults


def commit_all(agent: Agent, releases: Sequence[Release]) -> None:
    """Commit each release as a version, and print a row for it."""
    print(f"{'release':<12}{'version':<12}{'files':>7}{'bytes':>12}  {'commit':<14}{'time':>8}")
    for release in releases:
        replace(agent.workspace, release.files)
        start = time.perf_counter()
        notes = f"{release.wheel.name}, release {release.number}"
        if release.number != release.version:
            notes += f"\n\nThe release number {release.number} is no semantic version; it became {release.version}."
        version = agent.commit(version=release.version, notes=notes)
        seconds = time.perf_counter() - start
        row = f"{release.number:<12}{release.version:<12}{len(release.files):>7}{release.size:>12}"
        print(f"{row}  {version.commit[:12]:<14}{seconds:>6.2f} s")


def itinerary(releases: Sequence[Release], seed: int) -> list[Release]:
    """From end to end, every release in two random orders, and to both ends again; never twice in a row."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable order, not a key
    stops = [releases[0], releases[-1]]
    for _ in range(2):
        stops += chance.sample(releases, len(releases))
    stops += [releases[0], releases[-1]]
    return [stop for number, stop in enumerate(stops) if number == 0 or stop is not stops[number - 1]]


def roll_through(agent: Agent, base: Path, stops: Sequence[Release]) -> int:
    """Roll back to each stop and compare; the number of stops where anything differed."""
    bad = 0
    for number, stop in enumerate(stops, 1):
        start = time.perf_counter()
        plan = agent.rollback(f"v{stop.version}", reason=f"stop {number} of {len(stops)}")
        seconds = time.perf_counter() - start
        faults = compare(agent, base, stop)
        bad += bool(faults)
        changed = f"{len(plan.writes):>4} written {len(plan.removes):>4} removed"
        print(f"{number:>4}  {plan.from_version:>10} -> {plan.to_version:<10} {changed} {seconds:>6.2f} s", end="  ")
        print("differs" if faults else "equal")
        for fault in faults[:20]:
            print(f"      {fault}")
    return bad


def gather(options: argparse.Namespace, scratch: Path) -> list[Release]:
    """The releases to import, oldest first."""
    if options.wheels is not None:
        directory = Path(options.wheels)
        numbers = finals(list(wheels(options.package, directory)), options.count)
    else:
        directory = scratch
        numbers = finals(published(options.package), options.count)
        print(f"downloading {len(numbers)} releases of {options.package}: {numbers[0]} to {numbers[-1]}")
        download(options.package, numbers, directory)
    found = wheels(options.package, directory)
    missing = [number for number in numbers if number not in found]
    if missing:
        raise CannotBegin(f"there is no wheel of {', '.join(missing)}")
    releases = [Release(number, semantic(number), found[number], unpacked(found[number])) for number in numbers]
    if len({release.version for release in releases}) != len(releases):
        raise CannotBegin(f"two of {', '.join(numbers)} become the same semantic version")
    return releases


@contextmanager
def place(options: argparse.Namespace) -> Iterator[tuple[Path, Path]]:
    """A scratch directory, and where the home will be; both go afterwards, but for a home with --keep."""
    with tempfile.TemporaryDirectory(prefix="kai-releases-") as scratch:
        home = Path(options.home or tempfile.mkdtemp(prefix="kai-home-"))
        try:
            yield Path(scratch), home
        finally:
            if options.keep:
                print(f"the home is kept: {home}")
            else:
                Vfs().remove_tree(str(home))


def run(options: argparse.Namespace) -> int:
    """Import, roll, compare; the exit status."""
    with place(options) as (scratch, path):
        releases = gather(options, scratch)
        kaivc.init(path, object_format=options.object_format).close()
        environ = {"KAI_AUTHOR": "Release Import <import@example.invalid>", **os.environ}
        home = kaivc.open(path, environ=environ)
        agent = home.new(_normal(options.package))
        commit_all(agent, releases)
        stops = itinerary(releases, options.seed)
        bad = roll_through(agent, home.path / agent.name, stops)
        verified = agent.verify()
        print(f"verified {verified.objects} objects, {verified.bytes} bytes: {'whole' if verified.ok else 'DAMAGED'}")
        home.close()
    if bad or not verified.ok:
        print(f"{bad} of {len(stops)} rollbacks differ")
        return 1
    print(f"ALL {len(stops)} rollbacks equal")
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--package", default="smolagents", help="the package to import (smolagents)")
    parser.add_argument("--count", type=int, default=10, help="how many of its newest final releases (10)")
    parser.add_argument("--short", action="store_true", help="three releases only")
    parser.add_argument("--wheels", metavar="DIR", help="take the wheels that lie here, download nothing")
    parser.add_argument("--home", metavar="DIR", help="where to make the home (a temporary directory)")
    parser.add_argument("--keep", action="store_true", help="leave the home there")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the rollbacks (1)")
    parser.add_argument("--object-format", choices=("sha256", "sha1"), default="sha256")
    options = parser.parse_args(words)
    options.count = 3 if options.short else max(FEWEST, options.count)
    if options.home and os.path.lexists(options.home):
        parser.error(f"{options.home} is there already")
    return options


def main(words: Sequence[str] | None = None) -> int:
    """0 when every rollback gave back its release, 1 when one did not, 2 when there was nothing to import."""
    try:
        return run(arguments(words))
    except CannotBegin as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KaiError as error:
        print(f"{error.code}: {error.what}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
