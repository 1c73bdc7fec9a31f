"""Look whether a bundle is whole, and what it holds."""

from __future__ import annotations

import os

from kaivc import bundles
from kaivc.bundles import Section
from kaivc.errors import UnreadablePath
from kaivc.records import dataclass
from kaivc.repository import OpenHome
from kaivc.wire import unframed


@dataclass(frozen=True)
class SectionChecked:
    """One agent in a bundle; ``missing`` are commits that it builds on and this home lacks, in hex."""

    agent: str
    versions: tuple[str, ...]
    current: str | None
    seq: int
    entries: int
    records: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class BundleChecked:
    """A bundle whose bytes are all what was written; ``home`` is the id of the one that it was made of."""

    path: str
    home: str
    object_format: str
    size: int
    agents: tuple[SectionChecked, ...]

    @property
    def fits(self) -> bool:
        """Whether it can be taken in here, as far as what it builds on is concerned."""
        return not any(it.missing for it in self.agents)


def bundle_verify(path: str, home: OpenHome | None = None) -> BundleChecked:
    """Compare every byte of a bundle; RefusedArrival if one is not what was written. Objects are not re-hashed.

    With a home, what the bundle builds on is looked for in it.
    """
    whole = os.path.abspath(path)
    try:
        file = open(whole, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UnreadablePath(f"{whole} cannot be read: {error.strerror}", path=whole) from error
    with file:
        found = bundles.read(whole, file)
        bundles.check(found, file)
        checked = []
        for it in found.sections:
            log = bundles.pieces(file, it.log_at, it.log_length, whole)
            checked.append(_checked(it, sum(1 for _ in unframed(log)), home))
    return BundleChecked(whole, found.home, found.object_format, found.size, tuple(checked))


def _checked(it: Section, entries: int, home: OpenHome | None) -> SectionChecked:
    agent = it.head.agent
    tags = sorted(ref.rsplit("/", 1)[1] for ref in it.head.refs if ref.startswith("refs/tags/"))
    current = it.head.refs.get(f"refs/heads/{agent}/current")
    missing: tuple[str, ...] = ()
    if it.needs:
        repo = home.repository(agent) if home is not None and home.catalog.agent(agent) is not None else None
        missing = tuple(oid.hex() for oid in it.needs if repo is None or repo.store.find(oid) is None)
    return SectionChecked(
        agent, tuple(tags), current.hex() if current else None, it.head.seq, entries, it.offer.records, missing
    )
