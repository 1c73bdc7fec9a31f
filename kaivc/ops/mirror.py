"""Keep a copy of agents at a git host of the other hash format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kaivc import gitpacks, remotelist
from kaivc.errors import Diverged, NoSuchAgent, NoVersionYet, RefusedByRemote, RefusedUrl, VersionConflict, WrongFormat
from kaivc.names import ObjectId, current_ref, tags_prefix
from kaivc.records import dataclass
from kaivc.reencoding import Reencoder
from kaivc.remotes.base import Context, Push, Sent
from kaivc.remotes.git import GitRemote, MakePack, Packing
from kaivc.remotes.git import connect as to_git
from kaivc.remotes.gitlines import Advertised
from kaivc.repository import OpenHome, Repository
from kaivc.storage.gitobjects import FORMATS
from kaivc.wire import Update


@dataclass(frozen=True)
class MirroredRef:
    """One ref that moved, or would: what it is here, and what it was and is over there; ids in hex."""

    ref: str
    id: str
    old: str | None
    new: str


@dataclass(frozen=True)
class MirroredAgent:
    """One agent: refs that moved, objects that were re-encoded for it, and the bytes that travelled."""

    agent: str
    refs: tuple[MirroredRef, ...]
    objects: int
    size: int


@dataclass(frozen=True)
class Mirrored:
    """What was copied; with ``applied`` false nothing was sent."""

    remote: str
    url: str
    object_format: str
    agents: tuple[MirroredAgent, ...]
    applied: bool


def mirror(
    home: OpenHome,
    context: Context,
    remote: str,
    object_format: str,
    agents: Sequence[str] = (),
    *,
    dry_run: bool = False,
) -> Mirrored:
    """Send versions and ``current`` of some agents, or of all that have a version, re-encoded to ``object_format``.

    One way: nothing is ever taken from there. ``current`` moves there only from what this home put there: Diverged
    otherwise. WrongFormat unless the host has that format, and the home another; RefusedUrl for what is no git host.
    """
    found = remotelist.find(home, remote)
    _check(home, found.url, remote, object_format)
    chosen = [home.repository(name) for name in agents] or _with_versions(home)
    for repo in chosen:
        repo.require_live()
        if repo.current is None:
            raise NoVersionYet(
                f"agent {repo.name} has no version yet", hint=f"make one with `kai commit {repo.name}`", agent=repo.name
            )
    far = to_git(context, found.url)
    try:
        if far.object_format != object_format:
            raise WrongFormat(
                f"{remote} hashes with {far.object_format}, not with {object_format}",
                unchanged="nothing was sent",
                hint="`kai push` sends to it as it is" if far.object_format == home.format.name else "look at the URL",
            )
        done = tuple(_Copy(repo, far, remote, object_format).run(dry_run=dry_run) for repo in chosen)
    finally:
        far.close()
    url = remotelist.shown(found.url)
    return Mirrored(remote, url, object_format, done, applied=not dry_run and any(it.refs for it in done))


def _check(home: OpenHome, url: str, remote: str, object_format: str) -> None:
    if object_format not in FORMATS or object_format == home.format.name:
        raise WrongFormat(
            f"this home hashes with {home.format.name}: a mirror has the other format",
            unchanged="nothing was sent",
            hint=f"`kai push` sends to a host of the same format; or choose {_other(home)}",
        )
    if not remotelist.is_git(url):
        raise RefusedUrl(
            f"{remote} is no git host: {remotelist.shown(url)}",
            unchanged="nothing was sent",
            hint="a mirror is for git hosts; put git+ before the scheme if it is one",
        )


def _other(home: OpenHome) -> str:
    return next(name for name in sorted(FORMATS) if name != home.format.name)


def _with_versions(home: OpenHome) -> list[Repository]:
    live = (home.repository(row.name) for row in home.catalog.agents() if not row.removed_ns)
    return [repo for repo in live if repo.current is not None]


class _Copy:
    """One agent on its way."""

    def __init__(self, repo: Repository, far: GitRemote, remote: str, object_format: str) -> None:
        self._repo = repo
        self._far = far
        self._remote = remote
        self._encoder = Reencoder(repo, FORMATS[object_format])

    def run(self, *, dry_run: bool) -> MirroredAgent:
        """Do it."""
        repo = self._repo
        mine: dict[str, ObjectId] = dict(repo.refs(tags_prefix(repo.name)).items())
        if repo.current is not None:
            mine[current_ref(repo.name)] = repo.current
        ids = self._encoder.ids(list(mine.values()))
        updates = self._updates({ref: ids[oid] for ref, oid in mine.items()}, self._theirs())
        sent = Sent(tuple(it.ref for it in updates))
        if updates and not dry_run:
            push = Push(repo.new_op_id(), str(repo.home.actor), "mirror", tuple(updates))
            sent = self._far.send_packed(repo, push, self._packing({other: oid for oid, other in ids.items()}))
            _say_refused(self._remote, sent)
        refs = [
            MirroredRef(it.ref, mine[it.ref].hex(), it.old.hex() if it.old else None, it.new.hex())
            for it in updates
            if it.new is not None and it.ref in sent.moved
        ]
        return MirroredAgent(repo.name, tuple(refs), self._encoder.made, sent.size)

    def _theirs(self) -> Mapping[str, bytes]:
        try:
            return self._far.head(self._repo.name).refs
        except NoSuchAgent:
            return {}

    def _updates(self, wanted: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> list[Update]:
        updates = []
        for ref, new in sorted(wanted.items(), key=lambda it: (it[0] == current_ref(self._repo.name), it[0])):
            old = theirs.get(ref)
            if old == new:
                continue
            if old is not None:
                self._require_ours(ref, old)
            updates.append(Update(ref, old, new))
        return updates

    def _require_ours(self, ref: str, old: bytes) -> None:
        """A version never moves; ``current`` only from where this home put it."""
        if ref != current_ref(self._repo.name):
            raise VersionConflict(
                f"{ref} at {self._remote} is another version: {old.hex()[:12]}",
                unchanged="nothing was sent",
                hint="a mirror belongs to one home: was it pushed to from elsewhere?",
                ref=ref,
                found=old.hex(),
            )
        if not self._encoder.origins([old]):
            raise Diverged(
                f"`current` of {self._repo.name} at {self._remote} is {old.hex()[:12]}, where this home did not put it",
                unchanged="nothing was sent",
                hint="a mirror belongs to one home; if that move is to be undone, reset the branch over there by hand",
                there=old.hex(),
            )

    def _packing(self, origins: Mapping[bytes, bytes]) -> Packing:
        def packing(wants: Sequence[bytes], there: Advertised) -> MakePack:
            haves = self._encoder.origins(there.refs.values()).values()
            thin = "no-thin" not in there.can
            plan = gitpacks.missing(self._repo, [origins[other] for other in wants], haves, thin=thin)
            return lambda: self._encoder.written(plan)

        return packing


def _say_refused(remote: str, sent: Sent) -> None:
    for ref, why in sent.refused.items():
        raise RefusedByRemote(
            f"{remote} refused {ref}: {why}",
            unchanged=f"{len(sent.moved)} refs moved over there",
            hint="do what it asks for, then run the command again",
            refused=dict(sent.refused),
            moved=list(sent.moved),
        )
