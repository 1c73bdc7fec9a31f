"""Every move of an agent's refs."""

from __future__ import annotations

from collections.abc import Iterator

from kaivc import versions
from kaivc.errors import ChecksumMismatch, NoSuchRevision
from kaivc.names import ObjectId, ReflogEntry, RefName, backup_ref, current_ref, heads_prefix, nearest
from kaivc.records import dataclass
from kaivc.repository import Repository


@dataclass(frozen=True)
class Reflog:
    """The moves of a ref, newest first.

    ``names`` maps a commit in hex to its version; ``gone`` are ids and backups' numbers that gc has collected;
    ``former`` are the names that the agent had.
    """

    agent: str
    ref: str | None
    entries: tuple[ReflogEntry, ...]
    names: dict[str, str]
    gone: frozenset[bytes | int] = frozenset()
    former: tuple[str, ...] = ()

    def collected(self, entry: ReflogEntry) -> list[str]:
        """What of an entry gc has collected, of ``old``, ``new`` and ``backup``."""
        named = {"old": entry.old, "new": entry.new, "backup": entry.backup}
        return [word for word, it in named.items() if it in self.gone]


def reflog(repo: Repository, ref: str | None = "current", *, limit: int | None = None) -> Reflog:
    """The moves of a branch, ``current`` unless said; of all refs for None."""
    name = _full_name(repo, ref) if ref is not None else None
    entries = repo.reflog(name, -1 if limit is None else limit)
    commits = {oid for entry in entries if entry.ref.startswith("refs/heads/") for oid in (entry.old, entry.new) if oid}
    names = {oid.hex(): _tag(repo, oid) for oid in commits}
    former = tuple(repo.catalog.former_names(repo.id))
    return Reflog(repo.name, name, tuple(entries), names, frozenset(_gone(repo, entries)), former)


def _gone(repo: Repository, entries: list[ReflogEntry]) -> Iterator[bytes | int]:
    yield from (oid for oid in {it for entry in entries for it in (entry.old, entry.new) if it} if _lacks(repo, oid))
    kept = repo.refs(heads_prefix(repo.name) + "backups/")
    saved = {entry.backup for entry in entries if entry.backup is not None}
    yield from (number for number in saved if backup_ref(repo.name, number) not in kept)


def _lacks(repo: Repository, oid: ObjectId) -> bool:
    try:
        return not repo.store.contains(oid)
    except ChecksumMismatch:
        return False  # a damaged row is there


def _tag(repo: Repository, oid: ObjectId) -> str:
    try:
        return versions.describe(repo, oid).tag
    except ChecksumMismatch:
        return oid.hex()[:12]


def _full_name(repo: Repository, ref: str) -> RefName:
    if ref == "current":
        return current_ref(repo.name)
    if not ref.isascii():
        raise NoSuchRevision(f"{repo.name} has no ref {ref!r}", hint="see `kai reflog --all`")
    name = RefName(ref if ref.startswith("refs/") else heads_prefix(repo.name) + ref)
    if repo.ref(name) is None and not repo.reflog(name, 1):
        known = [known.removeprefix(heads_prefix(repo.name)) for known in repo.refs(heads_prefix(repo.name))]
        close = nearest(ref, known)
        raise NoSuchRevision(
            f"{repo.name} has no ref {ref!r}",
            hint=f"did you mean {', '.join(close)}?" if close else "see `kai reflog --all`",
            nearest=close,
        )
    return name
