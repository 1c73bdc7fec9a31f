"""Compare versions and refs with those of a remote, hash by hash; nothing is moved, and no objects travel."""

from __future__ import annotations

from collections.abc import Sequence

from kaivc import landing, remotelist
from kaivc.errors import ForkedLog, InvalidName, NoSuchAgent
from kaivc.names import ObjectId, Version, current_ref, nearest, tags_prefix
from kaivc.records import dataclass
from kaivc.remotes import connect
from kaivc.remotes.base import Can, Context, Remote
from kaivc.remotes.tracking import check_log, commit_of, require_format
from kaivc.repository import OpenHome, Repository


@dataclass(frozen=True)
class DifferentRef:
    """A name that stands for something else over there, or only on one side; ids in hex, None for not there.

    ``kind`` says of what the ids are: commits, or the tags of a version whose commit is not known here.
    """

    name: str
    here: str | None
    there: str | None
    kind: str


@dataclass(frozen=True)
class AgentCompared:
    """One agent on both sides.

    ``same`` are the names that stand for the same on both; ``seen`` is the entry of the remote's log that was seen
    last, ``seq`` its newest one now, 0 where there is none; ``log`` says what is wrong with it, None if nothing is.
    """

    agent: str
    there: bool
    here: bool
    same: tuple[str, ...]
    different: tuple[DifferentRef, ...]
    seen: int
    seq: int
    log: str | None

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return self.here and self.there and not self.different and self.log is None


@dataclass(frozen=True)
class Compared:
    """Both homes, agent by agent."""

    remote: str
    url: str
    home: str
    agents: tuple[AgentCompared, ...]

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return all(it.agrees for it in self.agents)


def audit_against(home: OpenHome, context: Context, remote: str, agents: Sequence[str] = ()) -> Compared:
    """Compare some agents, or all that either side has. Snapshots are named where they differ; backups stay at home."""
    found = remotelist.find(home, remote)
    far = connect(context, found.url)
    try:
        require_format(home, far, remote)
        there, here = far.agents(), home.catalog.agent_names()
        for name in agents:
            if name not in there and name not in here:
                close = nearest(name, [*there, *here])
                hint = f"did you mean {', '.join(close)}?" if close else ""
                raise NoSuchAgent(f"there is no agent {name!r:.100}, here or at {remote}", hint=hint, name=name[:100])
        wanted = list(agents) or sorted({*there, *here})
        done = tuple(_compare(home, far, remote, name, is_there=name in there, is_here=name in here) for name in wanted)
        return Compared(remote, remotelist.shown(found.url), far.home, done)
    finally:
        far.close()


def _compare(home: OpenHome, far: Remote, remote: str, agent: str, *, is_there: bool, is_here: bool) -> AgentCompared:
    last = remotelist.seen(home, remote, agent) if Can.LOG in far.can else None
    seen = last.seq if last is not None else 0
    if not is_there:
        gone = f"entry {seen} of its log was seen, and it is not there any more" if last is not None else None
        return AgentCompared(agent, is_there, is_here, (), (), seen, 0, gone)
    head = far.head(agent)
    theirs = {ref: oid for ref, oid in head.refs.items() if landing.may_travel(agent, ref)}
    problem = None
    if last is not None:
        try:
            check_log(far, remote, head, last)
        except ForkedLog as error:
            problem = error.what
    ours: dict[str, ObjectId] = {}
    if is_here:
        ours = {str(ref): oid for ref, oid in landing.shown_refs(home.repository(agent)).items()}
    names = sorted({*ours, *theirs}, key=lambda ref: _order(agent, ref))
    same = tuple(_label(agent, ref) for ref in names if ours.get(ref) == theirs.get(ref))
    repo = home.repository(agent) if is_here else None
    different = tuple(
        _different(repo, agent, ref, ours.get(ref), theirs.get(ref))
        for ref in names
        if ours.get(ref) != theirs.get(ref)
    )
    return AgentCompared(agent, is_there, is_here, same, different, seen, head.seq, problem)


def _label(agent: str, ref: str) -> str:
    return ref.removeprefix(tags_prefix(agent)).removeprefix(f"refs/heads/{agent}/")


def _order(agent: str, ref: str) -> tuple[int, object]:
    """Versions by their numbers, then ``current``, then the rest."""
    if ref.startswith(tags_prefix(agent)):
        try:
            return 0, Version.parse(ref.removeprefix(tags_prefix(agent))).key
        except InvalidName:
            return 2, ref
    return (1 if ref == current_ref(agent) else 3), ref


def _different(repo: Repository | None, agent: str, ref: str, here: bytes | None, there: bytes | None) -> DifferentRef:
    """Versions by their commits where both are known and differ, so that like is compared with like."""
    kind = "commit"
    if ref.startswith(tags_prefix(agent)):
        commits = {oid: commit_of(repo, oid) if repo is not None else None for oid in (here, there) if oid is not None}
        if None in commits.values() or len(set(commits.values())) < len(commits):
            kind = "tag"
        else:
            here, there = (commits[oid] if oid is not None else None for oid in (here, there))
    return DifferentRef(_label(agent, ref), here.hex() if here else None, there.hex() if there else None, kind)
