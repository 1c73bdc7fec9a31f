"""Recompute what versions are made of, and say what differs: a report that a third party can check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import cached_property
from typing import Any

from kaivc import inspection, recheck, recount, revisions, settled, versions
from kaivc.errors import ChecksumMismatch, InvalidName, KaiError, NoSuchRevision
from kaivc.findings import Finding
from kaivc.names import ObjectId, Version, current_ref, tags_prefix, version_ref
from kaivc.records import dataclass, field
from kaivc.report import AgentReport, AuditReport, MoveReport, Recheck
from kaivc.repository import OpenHome, Repository
from kaivc.storage import fsck, salvage
from kaivc.storage.catalog import AgentRow
from kaivc.storage.pack import PackReader
from kaivc.vfs import mapped, unless_short
from kaivc.walk import Walk, roots

_HEAD = re.compile(r"(?:([1-9][0-9]{0,17}):)?([0-9a-f]{64})\Z")


def audit(
    home: OpenHome,
    agent: str | None = None,
    rev: str | None = None,
    *,
    expect_head: str | None = None,
    release: str = "",
) -> AuditReport:
    """Audit all agents, one, or one version of it; whatever is damaged is a finding, not an error.

    ``expect_head`` is a head of the agent's chain that an earlier audit gave, ``SEQ:DIGEST`` or the digest alone; that
    the chain no longer holds it is a finding. ``release`` is the kaivc that looks. NoSuchAgent, NoSuchRevision,
    InvalidName; ChecksumMismatch or StorageFailed where there is no catalog to begin with.
    """
    expected = _expected_head(expect_head, agent)
    asked = None if agent is None else home.repository(agent)
    label = None if asked is None or rev is None else _label(asked, rev)
    with mapped("checking", home.layout.root):
        with closing(settled.connect(home)) as db:
            found = inspection.home(home, db)
            rows = [row for row in fsck.agents(db) if asked is None or row.id == asked.id]
        agents = tuple(_audited(home.repository(row.name), label, expected) for row in rows)
    if asked is not None:
        found = [finding for finding in found if finding.agent in (None, asked.name)]
    scope = None if asked is None else asked.name if label is None else f"{asked.name}@{label}"
    return AuditReport(
        home=home.id,
        object_format=home.format.name,
        time_ns=home.clock.now_ns(),
        actor=str(home.actor),
        kaivc=release,
        scope=scope,
        expected_head=expect_head,
        agents=agents,
        findings=tuple(found),
    )


def _audited(repo: Repository, label: str | None, expected: tuple[int | None, str] | None) -> AgentReport:
    with settled.agent(repo) as look:
        return _Auditor(repo, look, label, expected).report()


def _expected_head(text: str | None, agent: str | None) -> tuple[int | None, str] | None:
    if text is None:
        return None
    match = _HEAD.match(text)
    if match is None:
        raise InvalidName(
            f"{text!r} is no head of a chain", hint="use what an earlier audit printed: SEQ:DIGEST, or its 64 digits"
        )
    if agent is None:
        raise InvalidName("a head is of one agent's chain", hint="name the agent")
    return (int(match[1]) if match[1] else None), match[2]


def _label(repo: Repository, rev: str) -> str:
    """The version that a revision names; one whose objects are damaged can be asked for by its number."""
    with suppress(InvalidName):
        number = Version.parse(rev)
        if repo.ref(version_ref(repo.name, number)) is not None:
            return number.tag
    version = revisions.resolve(repo, rev)
    if version.version is None:
        raise NoSuchRevision(
            f"{rev!r} is no version of {repo.name}, and an audit is of versions",
            hint="`kai verify` looks at backups and snapshots too",
            revision=rev,
        )
    return version.tag


@dataclass
class _Auditor:
    """Audits one agent; ``label`` is the one version that was asked for."""

    repo: Repository
    look: settled.Look
    label: str | None
    expected: tuple[int | None, str] | None
    readers: dict[str, PackReader] = field(default_factory=dict)

    @property
    def row(self) -> AgentRow:
        return self.look.row

    @cached_property
    def refs(self) -> dict[str, bytes]:
        return {row["name"]: row["oid"] for row in self._rows("refs")}

    @cached_property
    def digests(self) -> dict[int, str]:
        """The digests of the op records, as their rows say; the inspection compares them with the records."""
        return {row["seq"]: row["digest"].hex() for row in self._rows("ops") if isinstance(row["digest"], bytes)}

    def _rows(self, table: str) -> list[dict[str, Any]]:
        return list(salvage.good_rows(self.look.db, table, "WHERE agent = ?", (self.row.id,)))

    def report(self) -> AgentReport:
        looked = self.look.found
        findings = [*looked.findings, *self._in_place_of(looked.findings), *self._head(looked.ops)]
        tags = tags_prefix(self.row.name)
        labels = sorted((name.removeprefix(tags) for name in self.refs if name.startswith(tags)), key=_order)
        shown = [label for label in labels if self.label in (None, label)]
        listed = []
        for number, label in enumerate(shown):
            self.repo.home.progress("recomputing versions", number, len(shown))
            hits = [it for it in findings if label in it.versions]
            listed.append(recount.version(self.repo, label, ObjectId(self.refs[tags + label]), hits))
        # Of one version alone: what other versions have is not asked for, what has no version counts for all.
        others = [it for it in findings if not set(shown) & set(it.versions)]
        packs = {row["id"]: row["name"] for row in self._rows("packs")}
        report = AgentReport(
            agent=self.row.name,
            removed_ns=self.row.removed_ns,
            head=looked.head,
            ops=looked.ops,
            packs=len(packs),
            objects=looked.objects,
            bytes=looked.bytes,
            refs=tuple((name, oid.hex()) for name, oid in sorted(self.refs.items())),
            moves=tuple(self._moves()),
            versions=tuple(listed),
            findings=tuple(it for it in others if self.label is None or not it.versions),
            recheck=tuple(self._recheck(looked, packs)),
        )
        for reader in self.readers.values():
            reader.close()
        return report

    def _in_place_of(self, findings: Sequence[Finding]) -> list[Finding]:
        """What refs lead to that are not where the op records say: the inspection follows the op records."""
        moved = {it.row.removeprefix("refs ") for it in findings if it.where == "ref" and it.row is not None}
        walk = Walk(self.repo)
        for root in roots(self.row.name, {name: oid for name, oid in self.refs.items() if name in moved}):
            if root.is_tag:
                walk.root(root)
        return [it for it in walk.findings() if it not in findings]

    # ------------------------------------------------------------ the chain

    def _head(self, ops: int) -> Iterator[Finding]:
        """That the chain holds the head that an earlier audit gave: it only grew since."""
        if self.expected is None:
            return
        seq, digest = self.expected
        there = {value: number for number, value in self.digests.items()}
        if digest in there and seq in (None, there[digest]):
            return
        if seq is not None and seq in self.digests:
            found = f"op record {seq} is {self.digests[seq]}"
        else:
            found = f"{ops} op records, none of which it is"
        what = "the chain does not hold the head that was expected: the log did not only grow"
        yield Finding("op", what, self.row.name, seq=seq, expected=digest, found=found)

    def _moves(self) -> Iterator[MoveReport]:
        names = {str(current_ref(self.row.name))}
        with suppress(ChecksumMismatch):
            names |= set(self.repo.names_of(current_ref(self.row.name)))
        rows = [row for row in self._rows("reflog") if row["ref"] in names and row["verb"] != "rename"]
        undone = _undone({row["seq"]: row["undoes"] for row in rows})
        for row in rows:
            yield MoveReport(
                seq=row["seq"],
                digest=self.digests.get(row["seq"]),
                time_ns=row["time_ns"],
                verb=row["verb"],
                actor=row["actor"],
                reason=row["reason"],
                from_version=self._called(row["old"]),
                to_version=self._called(row["new"]),
                from_commit=None if row["old"] is None else row["old"].hex(),
                to_commit=None if row["new"] is None else row["new"].hex(),
                undoes=row["undoes"],
                undone_by=undone.get(row["seq"]),
                backup=row["backup"],
                op_id=row["op_id"],
            )

    def _called(self, oid: bytes | None) -> str | None:
        if oid is None:
            return None
        try:
            return versions.describe(self.repo, ObjectId(oid)).tag
        except KaiError as error:
            unless_short(error)
            return None

    # ------------------------------------------------------------ how to check it

    def _recheck(self, looked: inspection.Inspected, packs: dict[int, str]) -> Iterator[Recheck]:
        yield from recheck.agent(self.row.name, self.refs, f"{looked.ops}:{looked.head}")
        for row in self._rows("ops"):
            at = None if row["payload"] is not None else self._payload(packs.get(row["pack"]), row["offset"])
            if row["seq"] in self.digests and (at is not None or row["payload"] is not None):
                yield recheck.op(self.repo.layout, self.row, row["seq"], self.digests[row["seq"]], at)

    def _payload(self, pack: str | None, offset: int) -> tuple[str, int, int] | None:
        """Where the bytes of an op record lie in its pack."""
        if pack is None:
            return None
        try:
            reader = self.readers.get(pack)
            if reader is None:
                reader = self.readers[pack] = PackReader.open(self.repo.layout.pack(self.row.name, pack))
            header = reader.header(offset)
        except (KaiError, OSError, TypeError) as error:
            unless_short(error)
            return None
        return pack, header.payload_at, header.payload_len


def _undone(undoes: dict[int, int | None]) -> dict[int, int]:
    """Which moves are undone, and by which; an undo that was itself undone (by a redo) does not count."""
    undone: dict[int, int] = {}
    for seq, of in sorted(undoes.items(), reverse=True):
        if of is not None and seq not in undone:
            undone.setdefault(of, seq)
    return undone


def _order(label: str) -> tuple[bool, Any]:
    """Versions by their numbers, and after them what is no number."""
    try:
        return False, Version.parse(label).key
    except InvalidName:
        return True, label
