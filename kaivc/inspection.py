"""Look at all that an agent is made of; say what is not what it must be, and which versions and paths it takes along.

::

    walk.Walk(repo)                     versions: tags, commits, trees, blobs, checksums, parents (room ``walk``)
    agent(repo, db, row)                packs, index, op chain, reflog, refs, and all versions: what fsck says
    view(repo, version), views(repo)    views: every byte, extra files
    in_force(repo)                      the ``current`` link
    rollback_log(repo)                  the file against the reflog
    unfinished(repo)                    intents, and scratch that a cut command left
    home(opened, db)                    the catalog's rows, and what stands beside it

Each gives a list of ``Finding`` (room ``findings``) and raises nothing for what is damaged. ``db`` is a connection of
``storage.salvage.connect``. Nothing here repairs.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable
from functools import partial

from kaivc import findings, inforce, versions
from kaivc.errors import InvalidName, KaiError
from kaivc.findings import Finding
from kaivc.layout import META_FILE, UNFINISHED, link_target
from kaivc.names import ObjectId, RefName, Version, tags_prefix
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome, Repository
from kaivc.storage import fsck, gather, homefile, journal
from kaivc.storage.catalog import AgentRow
from kaivc.storage.damage import AgentCheck, Damage, Severity
from kaivc.storage.salvage import good_rows
from kaivc.versions import AgentVersion
from kaivc.vfs import unless_short
from kaivc.views import Problem, View
from kaivc.walk import Walk, roots

SCRATCH = (".new-", ".old-")
MAX_LOG_LINE = 1 << 20
MAX_META = 4 << 20
CUT = "not seen since the machine was started: its next use makes it anew"


@dataclass(frozen=True)
class Inspected:
    """What was looked at of one agent, and what was found; ``ops`` and ``head`` tell of its chain."""

    agent: str
    versions: tuple[str, ...]
    objects: int
    bytes: int
    ops: int
    head: str
    findings: tuple[Finding, ...]


# ---------------------------------------------------------------- bytes and names


def agent(repo: Repository, db: sqlite3.Connection, row: AgentRow) -> Inspected:
    """Everything of one agent but its workspace."""
    check = fsck.check_agent(repo.store, db, row, repo.home.progress)
    refs = check.refs
    if refs is None:
        refs = {values["name"]: values["oid"] for values in good_rows(db, "refs", "WHERE agent = ?", (row.id,))}
    walk = Walk(repo, partial(_problem_of, repo, check))
    found = roots(repo.name, refs)
    walk.all(found)
    said = attributed(check, walk)
    for look in (views, in_force, rollback_log, unfinished):
        said += _looked(repo, look)
    labels = tuple(root.label for root in found if root.ref.startswith(tags_prefix(repo.name)))
    return Inspected(repo.name, labels, check.objects, check.size, check.ops, check.head.hex(), tuple(said))


def _looked(repo: Repository, look: Callable[[Repository], list[Finding]]) -> list[Finding]:
    try:
        return look(repo)
    except KaiError as error:
        unless_short(error)
        return [Finding("catalog", error.what, repo.name)]
    except OSError as error:
        unless_short(error)
        return [Finding("home", f"{error.filename or 'a file'} cannot be read: {error.strerror}", repo.name)]


def _problem_of(repo: Repository, check: AgentCheck, oid: ObjectId) -> Damage | None:
    """What the scan of the packs says of an object; the bytes are not read again."""
    if oid in check.bad:
        return check.bad[oid]
    try:
        repo.store.require(oid)
    except KaiError as error:
        unless_short(error)
        return Damage("index", error.what, repo.name, object=oid.hex())
    return None


def attributed(check: AgentCheck, walk: Walk) -> list[Finding]:
    """What was found in records and rows, each with the versions and paths that it takes along."""
    taken: dict[str, list[Finding]] = {}
    rest = []
    for finding in walk.findings():
        if finding.where == "store" and finding.object is not None:
            taken.setdefault(finding.object, []).append(finding)
        else:
            rest.append(finding)
    said: list[Finding] = []
    for damage in check.damages:
        hits = _hit(damage.object, check, taken) if damage.object is not None else []
        inside = [] if hits else _taken_within(damage, check, taken)
        said += [findings.of(damage, hit.versions, hit.path) for hit in hits + inside] or [
            findings.of(damage, _named_by(damage))
        ]
    attributed_to = {oid for holders in check.holders.values() for oid in holders}
    for oid, hits in taken.items():
        said += [] if oid in attributed_to else hits
    return said + rest


def _named_by(damage: Damage) -> tuple[str, ...]:
    """The version that a damaged ref is the name of."""
    prefix = f"refs {tags_prefix(damage.agent or '')}"
    named = damage.where == "ref" and damage.row is not None and damage.row.startswith(prefix)
    return ((damage.row or "").removeprefix(prefix),) if named else ()


def _hit(oid: str, check: AgentCheck, taken: dict[str, list[Finding]]) -> list[Finding]:
    """The paths that a bad object takes along: its own, and those of what it is a chunk of or is needed to read."""
    holders = check.holders.get(oid, [])
    return taken.pop(oid, []) + [hit for holder in holders for hit in taken.get(holder, [])]


def _taken_within(damage: Damage, check: AgentCheck, taken: dict[str, list[Finding]]) -> list[Finding]:
    """What a damaged range takes along whose own head could not be read."""
    if damage.where != "pack" or damage.offset is None or damage.end is None:
        return []
    inside = [
        oid.hex()
        for oid, it in check.bad.items()
        if it.pack == damage.pack and it.offset is not None and damage.offset <= it.offset < damage.end
    ]
    return [hit for oid in inside for hit in _hit(oid, check, taken)]


# ---------------------------------------------------------------- views


def view(repo: Repository, version: AgentVersion) -> list[Finding]:
    """Every byte of the view of a version, if it is there; files that the version does not hold."""
    try:
        one = View(repo, version)
        problems = one.check(full=True) if one.exists() else []
    except KaiError as error:
        unless_short(error)
        return [Finding("view", error.what, repo.name, (version.tag,))]
    except OSError as error:
        unless_short(error)
        return [Finding("view", f"the view cannot be read: {error.strerror}", repo.name, (version.tag,))]
    found = [_in_view(one, version, it) for it in problems]
    if found and one.may_be_cut():
        return [replace(it, severity=Severity.WARNING, problem=f"{it.problem} ({CUT})") for it in found]
    return found


def _in_view(one: View, version: AgentVersion, it: Problem) -> Finding:
    """A path that differs; of ``snapshot_meta.json`` the first key that does."""
    key = _differing_key(one, version) if it.path == os.fsdecode(META_FILE) and it.found is not None else None
    if key is None:
        said = (it.what, it.expected or "nothing", it.found or "nothing")
    else:
        said = (f"{key[0]!r:.80} is not what the store gives", *key[1:])
    problem, expected, found = said
    if it.expected is None:
        expected, found = "nothing", "a file"
    return Finding("view", problem, version.agent, (version.tag,), it.path, expected=expected, found=found)


def _differing_key(one: View, version: AgentVersion) -> tuple[str, str, str] | None:
    """The first key of a view's ``snapshot_meta.json`` that is not as it must be: key, expected, found."""
    try:
        fd = os.open(os.path.join(one.path, os.fsdecode(META_FILE)), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            found = json.loads(file.read(MAX_META))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    stated = version.snapshot_meta()
    for key in dict.fromkeys([*stated, *found]):
        one_side, other = stated.get(key, _ABSENT), found.get(key, _ABSENT)
        if one_side != other:
            return key, _shown(one_side), _shown(other)
    return None


_ABSENT = object()


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)


def views(repo: Repository) -> list[Finding]:
    """All views, and what lies between them."""
    directory = repo.layout.versions(repo.name)
    said = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.startswith(SCRATCH):
            said.append(
                _note("scratch", f"versions/{name} was left by a cut command: the next writer removes it", repo)
            )
            continue
        tag = RefName(tags_prefix(repo.name) + name)
        try:
            known = Version.parse(name).tag == name and repo.ref(tag) is not None
            version = versions.of_tag(repo, tag) if known else None
        except InvalidName:
            version = None
        except KaiError as error:
            unless_short(error)
            what = f"the view cannot be compared: {error.what}"
            said.append(Finding("view", what, repo.name, (name,), severity=Severity.WARNING))
            continue
        if version is None:
            what = f"versions/{name} is the view of no version"
            said.append(Finding("view", what, repo.name, severity=Severity.WARNING))
        else:
            said += view(repo, version)
    return said


def _note(where: str, what: str, repo: Repository) -> Finding:
    return Finding(where, what, repo.name, severity=Severity.NOTE)


# ---------------------------------------------------------------- what follows the catalog


def in_force(repo: Repository) -> list[Finding]:
    """The ``current`` link against the ref; behind it while an intent is pending."""
    if _is_relocated(repo):
        return []
    oid = repo.current
    path = repo.layout.current(repo.name)
    if oid is None or repo.row().removed_ns:
        if os.path.lexists(path):
            return [Finding("link", "`current` is there, and no version is in force", repo.name)]
        return []
    try:
        wanted = link_target(versions.describe(repo, oid).tag)
    except KaiError as error:
        unless_short(error)
        return []  # said of the commit
    what = ""
    try:
        found = os.readlink(path)
        if found != wanted:
            what = f"`current` points at {found!r:.200}, in force is {wanted}"
        elif not os.path.isdir(path):
            what = f"`current` points at {found}, which is not there"
    except OSError as error:
        unless_short(error)
        what = f"`current` is no link that can be read: {error.strerror}"
    if not what:
        return []
    pending = "link" in _pending(repo)
    return [Finding("link", what, repo.name, severity=Severity.NOTE if pending else Severity.DAMAGE)]


def rollback_log(repo: Repository) -> list[Finding]:
    """``rollback.log``, line by line, against the reflog of ``current``."""
    path = repo.layout.rollback_log(repo.name)
    if _is_relocated(repo) or (repo.row().removed_ns and not os.path.lexists(path)):
        return []
    wanted = inforce.log_lines(repo)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return [Finding("rollback.log", "rollback.log is no plain file", repo.name)]
        found = inforce.read_log(repo, sum(map(len, wanted)) + inforce.MARGIN).splitlines(keepends=True)
    except FileNotFoundError:
        found = []
    severity = Severity.NOTE if "rollback.log" in _pending(repo) else Severity.DAMAGE
    for number, (there, right) in enumerate(zip(found, wanted, strict=False), 1):
        if there != right and not _same_line(there, right):
            torn = number == len(found) and not there.endswith(b"\n") and right.startswith(there)
            what = f"line {number} of rollback.log is {'cut' if torn else 'not what the reflog says'}"
            return [Finding("rollback.log", what, repo.name, severity=severity)]
    if len(found) > len(wanted):
        what = f"rollback.log has {len(found)} lines, the reflog {len(wanted)} entries"
        return [Finding("rollback.log", what, repo.name)]
    if len(found) < len(wanted):
        what = f"rollback.log ends at line {len(found)}, the reflog has {len(wanted)} entries"
        return [Finding("rollback.log", what, repo.name, severity=severity)]
    return []


def _same_line(there: bytes, right: bytes) -> bool:
    """Whether two lines say the same but for the names of commits that cannot be read any more."""
    if len(there) > MAX_LOG_LINE or not there.endswith(b"\n"):
        return False
    try:
        one, two = json.loads(there), json.loads(right)
    except (ValueError, RecursionError):
        return False
    if not isinstance(one, dict) or list(one) != list(two):
        return False
    for name in ("from", "to"):
        if two[name] is not None and not str(two[name]).startswith("v"):
            one[name] = two[name]
    return (json.dumps(one) + "\n").encode() == (json.dumps(two) + "\n").encode()


def _pending(repo: Repository) -> set[str]:
    try:
        return {row.kind for row in journal.intents(repo.catalog, repo.id)}
    except KaiError as error:
        unless_short(error)
        return set()


def _is_relocated(repo: Repository) -> bool:
    """Whether a rename or a removal that was cut has yet to reach the agent's directory."""
    return bool(_pending(repo) & {journal.RENAME, journal.REMOVE})


def unfinished(repo: Repository) -> list[Finding]:
    """What a cut command left: intents, which the next writer carries out, and scratch without one."""
    kinds = sorted(_pending(repo))
    said = [_note("intent", f"still to be done by the next command that writes: {kind}", repo) for kind in kinds]
    if kinds:
        return said
    for name, path in (
        ("staging", repo.layout.staging(repo.name)),
        ("displaced", repo.layout.displaced(repo.name)),
    ):
        left = sorted(os.listdir(path)) if os.path.isdir(path) else []
        said += [
            _note("scratch", f".kai/{name}/{repo.name}/{op} belongs to nothing that is to be done", repo) for op in left
        ]
    return said


# ---------------------------------------------------------------- the home


def home(opened: OpenHome, db: sqlite3.Connection) -> list[Finding]:
    """The catalog's rows, and what stands beside it."""
    said = [findings.of(damage) for damage in fsck.check_catalog(db)]
    said += _home_file(opened.layout.home_file, db)
    names = {row.name for row in fsck.agents(db)} | _being_renamed(db)
    return said + beside(opened.layout.root, names, opened.layout.packs)


def _being_renamed(db: sqlite3.Connection) -> set[str]:
    """Old and new names of agents whose packs lie under both until a rename that was cut is finished."""
    rows = (row for row in good_rows(db, "intents") if row["kind"] == journal.RENAME)
    return {name for row in rows for name in bytes(row["payload"]).decode("utf-8", "replace").split(" ")}


def _home_file(path: str, db: sqlite3.Connection) -> list[Finding]:
    """``home.json`` against the catalog."""
    meta = {row["key"]: row["value"] for row in good_rows(db, "meta")}
    facts = homefile.read(path)
    if facts is None:
        return [Finding("home", "home.json is missing or cannot be read", severity=Severity.WARNING)]
    other = [key for key, value in facts.meta().items() if meta.get(key) != value]
    return [Finding("home", f"the catalog and home.json differ in {key}") for key in other]


def beside(root: str, agents: set[str], packs: str) -> list[Finding]:
    """Scratch of cut commands in the home itself, and packs of agents that the catalog does not know."""
    left = [name for name in sorted(os.listdir(root)) if name.startswith((".new-", ".kai-new-"))]
    said = [Finding("scratch", f"{name} was left by a cut command", severity=Severity.NOTE) for name in left]
    for name in gather.directories(packs):
        directory = os.path.join(packs, name)
        if name in agents or not os.listdir(directory):
            continue
        if os.path.lexists(os.path.join(directory, UNFINISHED)):
            said += [Finding("scratch", f"packs/{name} was left by a cut command", severity=Severity.NOTE)]
        elif gather.has_chain(directory, name):
            said += [Finding("catalog", f"packs/{name} holds the operations of an agent that the catalog lacks", name)]
        else:
            said += [Finding("pack", f"packs/{name} belongs to no agent", severity=Severity.NOTE)]
    return said
