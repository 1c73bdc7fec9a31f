"""Make a whole new catalog from the packs, and bring damaged objects back from wherever their bytes still are.

``Rebuild`` reads everything and decides; its ``plan`` is a value. ``apply`` writes: fresh packs first, then the new
catalog aside, then the swap, then damaged packs go to the quarantine. All agents' locks are held meanwhile.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress

from kaivc import freshpacks
from kaivc.errors import InvalidName, StorageFailed
from kaivc.names import check_name, tags_prefix
from kaivc.quarantine import set_aside
from kaivc.records import dataclass, replace
from kaivc.recovery import Recovery
from kaivc.repository import OpenHome
from kaivc.stock import Stock
from kaivc.storage import gather, homefile, newcatalog, oldcatalog
from kaivc.storage.catalog import AgentRow
from kaivc.storage.gather import AgentFacts, Place
from kaivc.storage.homefile import HomeFacts
from kaivc.storage.index import ObjectRow, PackRow, PackState
from kaivc.storage.journal import RENAME, Move, Op
from kaivc.storage.newcatalog import NewAgent
from kaivc.storage.oldcatalog import OldAgent, OldCatalog
from kaivc.storage.pack import RecordKind
from kaivc.storage.rechain import NOTHING, Link, Pool, rechain

REASON = "kai fsck --repair"


@dataclass(frozen=True)
class Healed:
    """An object whose bytes were found again; ``origin`` says where."""

    object: str
    kind: str
    origin: str


@dataclass(frozen=True)
class AgentPlan:
    """What becomes of one agent. ``lost_ops`` are (first, last) numbers of op records that are gone for good.

    ``lost`` are the ids of objects that versions need and that are nowhere; ``brought_back`` are refs that no op record
    names any more, ``lost_versions`` those that could not be brought back.
    """

    agent: str
    ops: int
    objects: int
    versions: int
    lost_ops: tuple[tuple[int, int], ...]
    healed: tuple[Healed, ...]
    lost: tuple[str, ...]
    brought_back: tuple[str, ...]
    lost_versions: tuple[str, ...]


@dataclass(frozen=True)
class PackAside:
    """A damaged pack that goes to the quarantine once its good records are held elsewhere."""

    agent: str
    pack: str
    why: str


@dataclass(frozen=True)
class RebuildPlan:
    """A new catalog. ``scratch`` are directories below ``.kai`` that nothing names any more, for the quarantine."""

    agents: tuple[AgentPlan, ...]
    packs: tuple[PackAside, ...]
    scratch: tuple[str, ...]


class Rebuild:
    """Everything that the home still holds, put together anew."""

    def __init__(self, home: OpenHome) -> None:
        self._home = home
        self._layout = home.layout
        self._old: OldCatalog = oldcatalog.read(home.layout.catalog, home.temp)
        self._directories = gather.directories(home.layout.packs)
        self.facts = self._identify()
        self._stocks = {stock.name: stock for stock in self._gathered()}
        recovery = Recovery(home, self.facts.format, self._stocks)
        for stock in self._stocks.values():
            self._decide_refs(stock)
        for stock in self._stocks.values():
            recovery.heal(stock)
            recovery.bring_back(stock)
            stock.close()
        self.plan = self._plan()

    # ------------------------------------------------------------ what the home is

    def _identify(self) -> HomeFacts:
        """By ``home.json``, else by the old catalog, else by the packs themselves."""
        said = homefile.read(self._layout.home_file)
        meta = self._old.meta
        by_catalog = homefile.check(meta.get("home_id"), meta.get("object_format"), meta.get("shared"))
        known = said or by_catalog
        paths = [self._layout.pack_dir(name) for name in self._directories]
        seen = gather.guess_format(paths)
        if known is None or (seen is not None and seen.name != known.object_format):
            mode = os.stat(self._layout.kai).st_mode
            name = seen.name if seen is not None else "sha256"
            known = HomeFacts(known.home_id if known else "", name, known.shared if known else bool(mode & 0o020))
        return known

    def _gathered(self) -> Iterator[Stock]:
        found: list[tuple[str, AgentFacts, OldAgent | None]] = []
        for name in self._names():
            old = self._old.agents.get(name)
            committed = {pack: row["committed"] for pack, row in old.packs.items()} if old else {}
            directory = self._layout.pack_dir(name)
            facts = gather.gather(name, directory, self.facts.format, committed, self._home.progress)
            found.append((name, facts, old))
        self.facts = replace(self.facts, home_id=self._home_id([facts for _, facts, _ in found]))
        pool = Pool(self.facts.home_id, [facts for _, facts, _ in found], self._old.payloads)
        missing = set() if self._old.agents_whole else pool.names() - {name for name, _, _ in found}
        found += [(name, AgentFacts(name), None) for name in sorted(missing) if _is_name(name)]
        for name, facts, old in found:
            chain = rechain(name, facts, old, pool)
            if chain is None and self._is_agent(name):
                chain = NOTHING
            if chain is not None:
                yield Stock(name, self._layout.pack_dir(name), self.facts.format, facts, old, chain)

    def _home_id(self, found: list[AgentFacts]) -> str:
        """What ``home.json`` says, else the old catalog, if any op record bears it out; else what most of them say."""
        homes = [record.home for facts in found for record, _ in facts.ops.values()]
        said = [it for it in (self.facts.home_id, self._old.meta.get("home_id")) if isinstance(it, str) and it]
        if not homes:
            return said[0] if said else secrets.token_hex(16)
        return next((it for it in said if it in homes), max(set(homes), key=homes.count))

    def _names(self) -> list[str]:
        """What may be an agent: by packs, by the old catalog, and, where that lacks some, by directories."""
        names = {*self._directories, *self._old.agents}
        if not self._old.agents_whole:
            with os.scandir(self._layout.root) as entries:
                names |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        return sorted(name for name in names if _is_name(name))

    def _is_agent(self, name: str) -> bool:
        """Whether a directory is that of an agent which has no operation yet."""
        if self._old.agents_whole or name in self._old.former or not os.path.isdir(self._layout.versions(name)):
            return False
        in_the_making = os.path.lexists(os.path.join(self._layout.snapshot_temp(name), ".new"))
        return not in_the_making and not gather.pack_names(self._layout.pack_dir(name))

    # ------------------------------------------------------------ names

    def _decide_refs(self, stock: Stock) -> None:
        """By the chain; where records are lost, by what the old catalog says of the refs that they may have moved."""
        stock.refs = stock.chain.replay()
        if stock.chain.lost and stock.old is not None:
            if stock.old.refs_whole and stock.old.row is not None:
                stock.refs = {}
            stock.refs |= stock.old.refs

    # ------------------------------------------------------------ the plan

    def _plan(self) -> RebuildPlan:
        agents = tuple(self._agent_plan(stock) for stock in self._stocks.values())
        packs = tuple(
            PackAside(stock.name, pack, stock.facts.packs[pack].damaged)
            for stock in self._stocks.values()
            for pack in stock.damaged
        )
        return RebuildPlan(agents, packs, tuple(self._scratch()))

    def _agent_plan(self, stock: Stock) -> AgentPlan:
        healed = [
            Healed(oid.hex(), RecordKind(source.kind).name.lower().replace("_", " "), source.origin)
            for oid, source in stock.sources.items()
        ]
        healed += [
            Healed(
                oid.hex(),
                "blob",
                f"the file {os.fsdecode(os.path.relpath(donor.path, os.fsencode(self._layout.root)))}",
            )
            for oid, donor in stock.files.items()
        ]
        prefix = tags_prefix(stock.name)
        return AgentPlan(
            agent=stock.name,
            ops=len(stock.chain.links),
            objects=len(stock.facts.objects),
            versions=sum(name.startswith(prefix) for name in stock.refs),
            lost_ops=stock.chain.lost,
            healed=tuple(healed),
            lost=tuple(oid.hex() for oid in stock.lost),
            brought_back=tuple(stock.brought_back),
            lost_versions=tuple(stock.lost_versions),
        )

    def _scratch(self) -> Iterator[str]:
        """Staged and displaced files whose intents are gone: nobody knows any more whether they are wanted."""
        for parent in ("staging", "displaced"):
            directory = os.path.join(self._layout.kai, parent)
            for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
                old = self._old.agents.get(name)
                known = old is not None and old.row is not None and old.intents_whole
                if not known and os.listdir(os.path.join(directory, name)):
                    yield os.path.join(parent, name)

    # ------------------------------------------------------------ carrying it out

    def apply(self, quarantine: str) -> None:
        """Write fresh packs and the new catalog, swap it in, move what is damaged to ``quarantine``."""
        vfs, layout = self._home.vfs, self._layout
        vfs.group = self.facts.shared
        fresh: list[str] = []
        temporary = os.path.join(layout.tmp, f"catalog-{secrets.token_hex(8)}")
        try:
            agents = [self._new_agent(stock, number, fresh) for number, stock in self._numbered()]
            vfs.make_dirs(layout.tmp, 0o770 if self.facts.shared else 0o700)
            now = self._home.clock.now_ns()
            op = Op("repair", secrets.token_hex(8), str(self._home.actor), now, REASON)
            newcatalog.write(temporary, self.facts.meta(), self.facts.home_id, agents, op)
            if homefile.read(layout.home_file) != self.facts:
                if not os.path.isfile(layout.home_file) or os.path.islink(layout.home_file):
                    set_aside(vfs, layout.home_file, quarantine)
                homefile.write(vfs, layout.home_file, self.facts)
            newcatalog.offer(vfs, layout, temporary, shared=self.facts.shared)
        except BaseException:
            for path in (temporary, *(temporary + side for side in newcatalog.SIDES[1:]), *fresh):
                with suppress(StorageFailed):
                    vfs.unlink(path, missing_ok=True)
            raise
        newcatalog.swap(vfs, layout, quarantine)
        self._set_aside(quarantine)

    def _numbered(self) -> list[tuple[int, Stock]]:
        """The agents with their numbers: the old ones, as far as they are known."""
        taken = {
            stock.old.row.id: stock.name
            for stock in self._stocks.values()
            if stock.old is not None and stock.old.row is not None
        }
        by_name = {name: number for number, name in taken.items()}
        free = iter(number for number in range(1, len(self._stocks) + max(taken, default=0) + 2) if number not in taken)
        return [(by_name.get(name) or next(free), stock) for name, stock in self._stocks.items()]

    def _new_agent(self, stock: Stock, number: int, fresh: list[str]) -> NewAgent:
        moved = freshpacks.write(self._home, stock, fresh, shared=self.facts.shared)
        row = stock.old.row if stock.old is not None else None
        chain = stock.chain
        first = chain.links[0].record.op.time_ns if chain.links else self._home.clock.now_ns()
        removed = max((link.record.op.time_ns for link in chain.links if link.record.op.verb == "remove"), default=0)
        agent = NewAgent(
            AgentRow(
                number,
                stock.name,
                row.created_ns if row else first,
                chain.seq,
                chain.head,
                row.removed_ns if row and (chain.lost or not chain.links) else removed,
            ),
            former=sorted(
                {name for name in chain.names if name != stock.name}
                | {name for name, now in self._old.former.items() if now == stock.name}
            ),
            links=[_moved(link, moved) for link in chain.links],
            refs=stock.refs,
            intents=stock.old.intents if stock.old is not None else list(self._cut_renames(stock)),
        )
        if stock.old is not None:
            log = stock.old.reflog
            agent.kept = [
                row
                for seq in sorted(log)
                if any(low <= seq <= high for low, high in chain.lost)
                for row in log[seq].values()
            ]
        self._index(stock, agent, moved)
        replayed = chain.replay()
        agent.moves = [
            Move(name, replayed.get(name), stock.refs.get(name))
            for name in sorted({*replayed, *stock.refs})
            if replayed.get(name) != stock.refs.get(name)
        ]
        return agent

    def _cut_renames(self, stock: Stock) -> Iterator[tuple[str, bytes]]:
        """What a rename left to do whose intent went with the old catalog: its record says that it landed."""
        layout, new = self._layout, stock.name
        for name in stock.chain.names:
            if name in self._stocks or not _is_name(name):
                continue
            moves = os.path.isdir(layout.versions(name)) and not os.path.lexists(layout.agent(new))
            if moves or (os.path.isdir(layout.pack_dir(name)) and not os.path.lexists(layout.agent(name))):
                yield RENAME, f"{name} {new}".encode()

    def _index(self, stock: Stock, agent: NewAgent, moved: dict[bytes, Place]) -> None:
        """The rows of packs, and of the objects in them that can be had."""
        damaged = set(stock.damaged)
        known = stock.old.packs if stock.old is not None else {}
        for name, pack in stock.facts.packs.items():
            if name in damaged:
                continue
            state = PackState.SEALED if pack.sealed else PackState.FAILED if pack.torn else PackState.OPEN
            row = known.get(name)
            if row is not None and row["state"] == PackState.FAILED:
                state = PackState.FAILED
            self._sync(stock.name, name)
            agent.packs.append(PackRow(row["id"] if row else 0, agent.row.id, name, state.value, pack.end))
        for name in {place.pack for place in moved.values()}:
            end = max(place.offset + place.length for place in moved.values() if place.pack == name)
            agent.packs.append(PackRow(0, agent.row.id, name, PackState.OPEN.value, end))
        agent.packs.sort(key=lambda pack: (pack.id == 0, pack.id))
        shared = {name for name in stock.facts.packs if self._is_linked(stock.name, name)}
        reached = stock.reached() if shared else set()
        for oid, there in {**stock.facts.objects, **moved}.items():
            if there.pack in damaged or there.kind == RecordKind.OP or (there.pack in shared and oid not in reached):
                continue
            size = there.size
            if there.kind == RecordKind.CHUNK_LIST:
                listed = stock.listed_at(there)
                held = (moved, stock.facts.objects)
                if not listed or not all(any(chunk_id in it for it in held) for chunk_id, _ in listed):
                    continue  # without all of its chunks it is not there: a commit of the same file brings it back
                size = sum(length for _, length in listed)
            agent.objects[oid] = (
                there.pack,
                ObjectRow(oid, there.kind, 0, there.offset, there.length, size, there.base, there.within),
            )
        _drop_baseless(agent.objects)
        stock.close()

    def _is_linked(self, agent: str, pack: str) -> bool:
        """Whether another agent has the pack too: then it holds things that are not this one's."""
        return os.stat(self._layout.pack(agent, pack)).st_nlink > 1

    def _sync(self, agent: str, pack: str) -> None:
        """What a pack holds past its committed end may not be on the disk yet, and is named from now on."""
        fd = self._home.vfs.open_append(self._layout.pack(agent, pack))
        try:
            self._home.vfs.sync(fd)
        finally:
            self._home.vfs.close(fd)

    # ------------------------------------------------------------ what goes aside

    def _set_aside(self, quarantine: str) -> None:
        vfs, layout = self._home.vfs, self._layout
        for pack in self.plan.packs:
            path = layout.pack(pack.agent, pack.pack)
            set_aside(vfs, path, os.path.join(quarantine, "packs", pack.agent))
        for relative in self.plan.scratch:
            parent = os.path.join(quarantine, os.path.dirname(relative))
            set_aside(vfs, os.path.join(layout.kai, relative), parent)


def _drop_baseless(objects: dict[bytes, tuple[str, ObjectRow]]) -> None:
    """Leave out what is encoded with what is left out: nothing that is needed names it."""
    while gone := [oid for oid, (_, row) in objects.items() if row.base is not None and row.base not in objects]:
        for oid in gone:
            del objects[oid]


def _moved(link: Link, moved: dict[bytes, Place]) -> Link:
    place = moved.get(link.record.digest)
    return link if place is None else replace(link, place=place)


def _is_name(name: str) -> bool:
    try:
        return check_name("agent", name) == name
    except InvalidName:
        return False
