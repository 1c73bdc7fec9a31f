"""Make a whole new catalog from the packs, and bring damaged objects back from wherever their bytes still are.

``Rebuild`` reads everything and decides; its ``plan`` is a value. ``apply`` writes: fresh packs first, then the new
catalog aside, then the swap, then damaged packs go to the quarantine. All agents' locks are held meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import msgpack

from kaivc import versions
from kaivc.errors import ChecksumMismatch, InvalidName, KaiError, StorageFailed
from kaivc.healing import Donor, Donors, tag_of
from kaivc.names import check_name, current_ref, tags_prefix
from kaivc.repository import OpenHome
from kaivc.storage import gather, homefile, newcatalog, oldcatalog, packscan
from kaivc.storage.catalog import AgentRow
from kaivc.storage.chunking import chunks
from kaivc.storage.gather import AgentFacts, Place
from kaivc.storage.gitobjects import (
    DIRECTORY,
    Kind,
    MalformedObject,
    decode_commit,
    decode_tag,
    decode_tree,
)
from kaivc.storage.homefile import HomeFacts
from kaivc.storage.index import ObjectRow, PackRow, PackState
from kaivc.storage.journal import Move, Op
from kaivc.storage.newcatalog import NewAgent
from kaivc.storage.oldcatalog import OldAgent, OldCatalog
from kaivc.storage.pack import PackReader, PackWriter, RecordKind
from kaivc.storage.rechain import NOTHING, Chain, Link, rechain
from kaivc.vfs import Vfs

READERS = 16
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


@dataclass
class _Source:
    """Where a healed record comes from."""

    kind: int
    load: Callable[[], bytes]
    origin: str
    size: int


@dataclass
class _Work:
    """One agent, being put together."""

    name: str
    facts: AgentFacts
    old: OldAgent | None
    chain: Chain
    refs: dict[str, bytes] = field(default_factory=dict)
    brought_back: list[str] = field(default_factory=list)
    lost_versions: list[str] = field(default_factory=list)
    sources: dict[bytes, _Source] = field(default_factory=dict)
    files: dict[bytes, Donor] = field(default_factory=dict)
    lost: list[bytes] = field(default_factory=list)
    whole_lists: set[bytes] = field(default_factory=set)
    readers: dict[str, PackReader] = field(default_factory=dict)

    @property
    def damaged(self) -> list[str]:
        return [name for name, pack in self.facts.packs.items() if pack.damaged]


class Rebuild:
    """Everything that the home still holds, put together anew."""

    def __init__(self, home: OpenHome) -> None:
        self._home = home
        self._layout = home.layout
        self._old: OldCatalog = oldcatalog.read(home.layout.catalog, home.temp)
        self._directories = gather.directories(home.layout.packs)
        self.facts = self._identify()
        self._works = {work.name: work for work in self._gathered()}
        self._donors: Donors | None = None
        for work in self._works.values():
            self._decide_refs(work)
        for work in self._works.values():
            self._heal(work)
            self._bring_back(work)
            self._close(work)
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

    def _gathered(self) -> Iterator[_Work]:
        found: list[tuple[str, AgentFacts, OldAgent | None]] = []
        for name in self._names():
            old = self._old.agents.get(name)
            committed = {pack: row["committed"] for pack, row in old.packs.items()} if old else {}
            directory = self._layout.pack_dir(name)
            facts = gather.gather(name, directory, self.facts.format, committed, self._home.progress)
            found.append((name, facts, old))
        if not self.facts.home_id:
            homes = [record.home for _, facts, _ in found for record, _ in facts.ops.values()]
            chosen = max(set(homes), key=homes.count) if homes else secrets.token_hex(16)
            self.facts = HomeFacts(chosen, self.facts.object_format, self.facts.shared)
        for name, facts, old in found:
            chain = rechain(name, self.facts.home_id, facts, old, self._old.payloads)
            if chain is None and self._is_agent(name):
                chain = NOTHING
            if chain is not None:
                yield _Work(name, facts, old, chain)

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

    def _decide_refs(self, work: _Work) -> None:
        """By the chain; where records are lost, by what the old catalog says of the refs that they may have moved."""
        work.refs = work.chain.replay()
        if work.chain.lost and work.old is not None:
            if work.old.refs_whole and work.old.row is not None:
                work.refs = {}
            work.refs |= work.old.refs

    def _bring_back(self, work: _Work) -> None:
        """Tags that no op names: of versions whose op record is lost."""
        if work.old is not None and work.old.row is not None and work.old.refs_whole:
            return
        found: dict[str, list[bytes]] = {}
        for oid, place in work.facts.objects.items():
            if place.kind == RecordKind.TAG and (name := self._tag_name(work, oid)) is not None:
                found.setdefault(name, []).append(oid)
        named = set(work.refs)
        named |= {move.ref for link in work.chain.links for move in link.record.moves}
        for name, oids in sorted(found.items()):
            if name in named:
                continue
            if len(oids) == 1 and not self._missing(work, {name: oids[0]}):
                work.refs[name] = oids[0]
                work.brought_back.append(name)
            else:
                work.lost_versions.append(name)

    def _tag_name(self, work: _Work, oid: bytes) -> str | None:
        """The ref that a tag object is for, if it is one of this agent's versions and says what its commit says."""
        try:
            width = self.facts.format.width
            tag = decode_tag(self._read(work, oid), width)
            commit = decode_commit(self._read(work, tag.target), width)
            _, trailers = versions.parse_message(commit.message)
        except (KeyError, KaiError):
            return None
        ref = "refs/tags/" + tag.name
        if (
            not ref.startswith(tags_prefix(work.name))
            or ref != f"{tags_prefix(work.name)}v{trailers.get('Kai-Version')}"
        ):
            return None
        return ref

    # ------------------------------------------------------------ objects

    def _read(self, work: _Work, oid: bytes) -> bytes:
        """The content of a record that was found whole; KeyError if there is none."""
        source = work.sources.get(oid)
        if source is not None:
            return source.load()
        place = work.facts.objects[oid]
        return self._content(work, place)

    def _content(self, work: _Work, place: Place) -> bytes:
        reader = work.readers.get(place.pack)
        if reader is None:
            while len(work.readers) >= READERS:
                work.readers.pop(next(iter(work.readers))).close()
            reader = packscan.open_reader(self._layout.pack(work.name, place.pack))
            work.readers[place.pack] = reader
        return reader.payload(reader.header(place.offset))

    def _close(self, work: _Work) -> None:
        for reader in work.readers.values():
            reader.close()
        work.readers.clear()

    def _missing(self, work: _Work, refs: dict[str, bytes]) -> dict[bytes, tuple[int, str]]:
        """What is reachable from some refs and cannot be had: by id, the kind that it must be and a ref it is under."""
        missing: dict[bytes, tuple[int, str]] = {}
        seen: set[bytes] = set()
        todo = [
            (oid, int(Kind.TAG if name.startswith("refs/tags/") else Kind.COMMIT), name) for name, oid in refs.items()
        ]
        while todo:
            oid, kind, ref = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            if not self._has(work, oid, kind):
                missing[oid] = (kind, ref)
            elif kind != Kind.BLOB:
                todo += [(below, what, ref) for below, what in self._below(work, oid, kind)]
        return missing

    def _has(self, work: _Work, oid: bytes, kind: int) -> bool:
        if oid in work.sources or oid in work.files:
            return True
        place = work.facts.objects.get(oid)
        if place is None:
            return False
        if place.kind == RecordKind.CHUNK_LIST:
            return kind == Kind.BLOB and self._is_whole(work, oid)
        return place.kind == kind

    def _is_whole(self, work: _Work, oid: bytes) -> bool:
        """Whether all chunks of a large blob are there, and make it."""
        if oid not in work.whole_lists:
            listed = self._listed(work, oid)
            digest = self.facts.format.header(Kind.BLOB, sum(size for _, size in listed))
            for chunk_id, _ in listed:
                if chunk_id not in work.sources and chunk_id not in work.facts.objects:
                    return False
                digest.update(self._read(work, chunk_id))
            if digest.digest() != oid:
                return False
            work.whole_lists.add(oid)
        return True

    def _listed(self, work: _Work, oid: bytes) -> list[tuple[bytes, int]]:
        try:
            pairs = msgpack.unpackb(self._read(work, oid), use_list=False, max_bin_len=64, max_map_len=0)
            return [(bytes(chunk_id), int(size)) for chunk_id, size in pairs]
        except (ValueError, TypeError, msgpack.UnpackException):
            return []

    def _below(self, work: _Work, oid: bytes, kind: int) -> list[tuple[bytes, int]]:
        data, width = self._read(work, oid), self.facts.format.width
        try:
            if kind == Kind.TAG:
                return [(decode_tag(data, width).target, Kind.COMMIT)]
            if kind == Kind.COMMIT:
                commit = decode_commit(data, width)
                return [(commit.tree, Kind.TREE), *([(commit.parent, Kind.COMMIT)] if commit.parent else [])]
            entries = decode_tree(data, width)
            return [(entry.oid, Kind.TREE if entry.mode == DIRECTORY else Kind.BLOB) for _, entry in entries]
        except MalformedObject:
            return []

    # ------------------------------------------------------------ healing

    def _heal(self, work: _Work) -> None:
        """Look for what is missing until nothing more is found: a tree that is back may miss files of its own."""
        while True:
            missing = self._missing(work, work.refs)
            if not missing:
                break
            if not sum([self._find(work, oid, kind, ref) for oid, (kind, ref) in missing.items()]):
                break
        work.lost = sorted(missing)

    def _find(self, work: _Work, oid: bytes, kind: int, ref: str) -> bool:
        if any(self._from_other(work, other, oid, kind) for other in self._works.values() if other is not work):
            return True
        if kind == Kind.BLOB:
            return self._from_files(work, oid)
        data, origin = None, "its view"
        if kind == Kind.TREE:
            data = self._look().tree(oid)
        elif kind == Kind.COMMIT:
            data = self._look().commit(oid, work.chain)
        elif kind == Kind.TAG:
            data, origin = self._tag_again(work, oid, ref), "its commit"
        if data is None:
            return False
        work.sources[oid] = _Source(kind, lambda: data, origin, len(data))
        return True

    def _from_other(self, work: _Work, other: _Work, oid: bytes, kind: int) -> bool:
        """The same record in the packs of another agent."""
        if not self._has(other, oid, kind) or oid in other.files or oid not in other.facts.objects:
            return False
        place = other.facts.objects[oid]
        self._copy_from(work, other, oid)
        if place.kind == RecordKind.CHUNK_LIST:
            for chunk_id, _ in self._listed(other, oid):
                if chunk_id not in work.facts.objects:
                    self._copy_from(work, other, chunk_id)
        return True

    def _copy_from(self, work: _Work, other: _Work, oid: bytes) -> None:
        place = other.facts.objects[oid]
        origin = f"the packs of {other.name}"
        work.sources[oid] = _Source(place.kind, lambda: self._content(other, place), origin, place.size)

    def _tag_again(self, work: _Work, oid: bytes, ref: str) -> bytes | None:
        """A tag says what its commit says: made again, it has the same id."""
        current = current_ref(work.name).removeprefix(f"refs/heads/{work.name}")
        for link in work.chain.links:
            moves = link.record.moves
            if not any(move.ref == ref for move in moves):
                continue
            for move in moves:
                if move.new is not None and move.ref.endswith(current):
                    with suppress(KeyError, KaiError):
                        commit = decode_commit(self._read(work, move.new), self.facts.format.width)
                        data = tag_of(commit, move.new, ref.removeprefix("refs/tags/"))
                        if self.facts.format.hash(Kind.TAG, data) == oid:
                            return data
        return None

    def _from_files(self, work: _Work, oid: bytes) -> bool:
        donor = self._look().file(oid)
        if donor is not None:
            work.files[oid] = donor
            return True
        place = work.facts.objects.get(oid)
        if place is None or place.kind != RecordKind.CHUNK_LIST:
            return False
        found = False
        for chunk_id, size in self._listed(work, oid):
            if chunk_id in work.facts.objects or chunk_id in work.sources:
                continue
            data = self._look().chunk(chunk_id)
            if data is None or len(data) != size:
                return False
            work.sources[chunk_id] = _Source(RecordKind.CHUNK, _constant(data), "a file that holds it", size)
            found = True
        return found

    def _look(self) -> Donors:
        if self._donors is None:
            views, workspaces = [], []
            for name in self._works:
                directory = self._layout.versions(name)
                listed = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
                views += [os.path.join(directory, it) for it in listed if not it.startswith(".")]
                workspaces.append(self._home.local.workspaces.get(name) or self._layout.workspace(name))
            self._donors = Donors(self.facts.format, views, workspaces, self._home.progress)
        return self._donors

    # ------------------------------------------------------------ the plan

    def _plan(self) -> RebuildPlan:
        agents = tuple(self._agent_plan(work) for work in self._works.values())
        packs = tuple(
            PackAside(work.name, pack, work.facts.packs[pack].damaged)
            for work in self._works.values()
            for pack in work.damaged
        )
        return RebuildPlan(agents, packs, tuple(self._scratch()))

    def _agent_plan(self, work: _Work) -> AgentPlan:
        healed = [
            Healed(oid.hex(), RecordKind(source.kind).name.lower().replace("_", " "), source.origin)
            for oid, source in work.sources.items()
        ]
        healed += [
            Healed(
                oid.hex(),
                "blob",
                f"the file {os.fsdecode(os.path.relpath(donor.path, os.fsencode(self._layout.root)))}",
            )
            for oid, donor in work.files.items()
        ]
        prefix = tags_prefix(work.name)
        return AgentPlan(
            agent=work.name,
            ops=len(work.chain.links),
            objects=len(work.facts.objects),
            versions=sum(name.startswith(prefix) for name in work.refs),
            lost_ops=work.chain.lost,
            healed=tuple(healed),
            lost=tuple(oid.hex() for oid in work.lost),
            brought_back=tuple(work.brought_back),
            lost_versions=tuple(work.lost_versions),
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
            agents = [self._new_agent(work, number, fresh) for number, work in self._numbered()]
            vfs.make_dirs(layout.tmp, 0o770 if self.facts.shared else 0o700)
            now = self._home.clock.now_ns()
            op = Op("repair", secrets.token_hex(8), str(self._home.actor), now, REASON)
            newcatalog.write(temporary, self.facts.meta(), self.facts.home_id, agents, op)
            if homefile.read(layout.home_file) != self.facts:
                homefile.write(vfs, layout.home_file, self.facts)
            newcatalog.offer(vfs, layout, temporary, shared=self.facts.shared)
        except BaseException:
            for path in (temporary, *(temporary + side for side in newcatalog.SIDES[1:]), *fresh):
                with suppress(StorageFailed):
                    vfs.unlink(path, missing_ok=True)
            raise
        newcatalog.swap(vfs, layout, quarantine)
        self._set_aside(quarantine)

    def _numbered(self) -> list[tuple[int, _Work]]:
        """The agents with their numbers: the old ones, as far as they are known."""
        taken = {
            work.old.row.id: work.name
            for work in self._works.values()
            if work.old is not None and work.old.row is not None
        }
        by_name = {name: number for number, name in taken.items()}
        free = iter(number for number in range(1, len(self._works) + max(taken, default=0) + 2) if number not in taken)
        return [(by_name.get(name) or next(free), work) for name, work in self._works.items()]

    def _new_agent(self, work: _Work, number: int, fresh: list[str]) -> NewAgent:
        moved = self._write_fresh(work, fresh)
        row = work.old.row if work.old is not None else None
        chain = work.chain
        first = chain.links[0].record.op.time_ns if chain.links else self._home.clock.now_ns()
        removed = max((link.record.op.time_ns for link in chain.links if link.record.op.verb == "remove"), default=0)
        agent = NewAgent(
            AgentRow(
                number,
                work.name,
                row.created_ns if row else first,
                chain.seq,
                chain.head,
                row.removed_ns if row else removed,
            ),
            former=sorted(
                {name for name in chain.names if name != work.name}
                | {name for name, now in self._old.former.items() if now == work.name}
            ),
            links=[_moved(link, moved) for link in chain.links],
            refs=work.refs,
            intents=work.old.intents if work.old is not None else [],
        )
        if work.old is not None:
            lost = [seq for first_, last in chain.lost for seq in range(first_, last + 1)]
            agent.kept = [row for seq in lost for row in work.old.reflog.get(seq, {}).values()]
        self._index(work, agent, moved)
        replayed = chain.replay()
        agent.moves = [
            Move(name, replayed.get(name), work.refs.get(name))
            for name in sorted({*replayed, *work.refs})
            if replayed.get(name) != work.refs.get(name)
        ]
        return agent

    def _index(self, work: _Work, agent: NewAgent, moved: dict[bytes, Place]) -> None:
        """The rows of packs, and of the objects in them that can be had."""
        damaged = set(work.damaged)
        known = work.old.packs if work.old is not None else {}
        for name, pack in work.facts.packs.items():
            if name in damaged:
                continue
            state = PackState.SEALED if pack.sealed else PackState.FAILED if pack.torn else PackState.OPEN
            row = known.get(name)
            if row is not None and row["state"] == PackState.FAILED:
                state = PackState.FAILED
            self._sync(work.name, name)
            agent.packs.append(PackRow(row["id"] if row else 0, agent.row.id, name, state.value, pack.end))
        for name in {place.pack for place in moved.values()}:
            end = max(place.offset + place.length for place in moved.values() if place.pack == name)
            agent.packs.append(PackRow(0, agent.row.id, name, PackState.OPEN.value, end))
        agent.packs.sort(key=lambda pack: (pack.id == 0, pack.id))
        shared = {name for name in work.facts.packs if self._is_linked(work.name, name)}
        reached = self._reached(work) if shared else set()
        for oid, there in {**work.facts.objects, **moved}.items():
            if there.pack in damaged or there.kind == RecordKind.OP or (there.pack in shared and oid not in reached):
                continue
            size = there.size
            if there.kind == RecordKind.CHUNK_LIST:
                listed = self._listed_at(work, there)
                if not all(chunk_id in moved or chunk_id in work.facts.objects for chunk_id, _ in listed):
                    continue  # without all of its chunks it is not there: a commit of the same file brings it back
                size = sum(length for _, length in listed)
            agent.objects[oid] = (there.pack, ObjectRow(oid, there.kind, 0, there.offset, there.length, size))
        self._close(work)

    def _is_linked(self, agent: str, pack: str) -> bool:
        """Whether another agent has the pack too: then it holds things that are not this one's."""
        return os.stat(self._layout.pack(agent, pack)).st_nlink > 1

    def _reached(self, work: _Work) -> set[bytes]:
        """The ids of all that refs, or moves of refs, name."""
        named = {oid for link in work.chain.links for move in link.record.moves for oid in (move.old, move.new) if oid}
        reached: set[bytes] = set()
        todo = [*named, *work.refs.values()]
        while todo:
            oid = todo.pop()
            place = work.facts.objects.get(oid)
            if oid in reached or (place is None and oid not in work.sources):
                continue
            reached.add(oid)
            kind = place.kind if place is not None else work.sources[oid].kind
            if kind == RecordKind.CHUNK_LIST:
                reached |= {chunk_id for chunk_id, _ in self._listed(work, oid)}
            elif kind in (Kind.TAG, Kind.COMMIT, Kind.TREE):
                todo += [below for below, _ in self._below(work, oid, kind)]
        return reached

    def _listed_at(self, work: _Work, place: Place) -> list[tuple[bytes, int]]:
        pairs = msgpack.unpackb(self._content(work, place), use_list=False, max_bin_len=64, max_map_len=0)
        return [(bytes(chunk_id), int(size)) for chunk_id, size in pairs]

    def _sync(self, agent: str, pack: str) -> None:
        """What a pack holds past its committed end may not be on the disk yet, and is named from now on."""
        fd = self._home.vfs.open_append(self._layout.pack(agent, pack))
        try:
            self._home.vfs.sync(fd)
        finally:
            self._home.vfs.close(fd)

    # ------------------------------------------------------------ fresh packs

    def _write_fresh(self, work: _Work, fresh: list[str]) -> dict[bytes, Place]:
        """Write the good records of damaged packs, and what was healed, to a new pack; where they lie now."""
        damaged = set(work.damaged)
        if not damaged and not work.sources and not work.files:
            return {}
        vfs, layout, level = self._home.vfs, self._layout, self._home.settings.compress_level
        name = secrets.token_hex(8)
        path = layout.pack(work.name, name)
        vfs.make_dirs(layout.pack_dir(work.name), 0o770 if self.facts.shared else 0o700)
        fresh.append(path)
        writer = PackWriter.create(vfs, path)
        moved: dict[bytes, Place] = {}

        def add(kind: int, oid: bytes, data: bytes) -> None:
            if oid not in moved:
                where = writer.add(kind, oid, data, level)
                moved[oid] = Place(name, where.offset, where.length, kind, len(data))

        try:
            for oid, place in work.facts.objects.items():
                if place.pack in damaged:
                    add(place.kind, oid, self._content(work, place))
            for oid, (_, place) in work.facts.ops.items():
                if place.pack in damaged:
                    add(place.kind, oid, self._content(work, place))
            for oid, source in work.sources.items():
                add(source.kind, oid, source.load())
            for oid, donor in work.files.items():
                self._add_file(oid, donor, add)
            writer.sync()
        finally:
            writer.close()
            self._close(work)
        vfs.sync_dir(layout.pack_dir(work.name))
        vfs.sync_dir(layout.packs)
        return moved

    def _add_file(self, oid: bytes, donor: Donor, add: Callable[[int, bytes, bytes], None]) -> None:
        """A blob from a file, as a commit would store it; ChecksumMismatch if it changed meanwhile."""
        if donor.is_link or donor.size <= self._home.settings.chunks_threshold:
            data = donor.read()
            self._same(self.facts.format.hash(Kind.BLOB, data), oid)
            add(RecordKind.BLOB, oid, data)
            return
        digest = self.facts.format.header(Kind.BLOB, donor.size)
        listing: list[tuple[bytes, int]] = []
        with open(donor.path, "rb") as file:
            for piece in chunks(file):
                digest.update(piece)
                chunk_id = hashlib.sha256(piece).digest()
                listing.append((chunk_id, len(piece)))
                add(RecordKind.CHUNK, chunk_id, piece)
        self._same(digest.digest(), oid)
        add(RecordKind.CHUNK_LIST, oid, msgpack.packb(listing))

    def _same(self, found: bytes, wanted: bytes) -> None:
        if found != wanted:
            raise ChecksumMismatch(
                "a file changed while bytes were taken from it", unchanged="nothing was repaired", hint="run it again"
            )

    # ------------------------------------------------------------ what goes aside

    def _set_aside(self, quarantine: str) -> None:
        vfs, layout = self._home.vfs, self._layout
        for pack in self.plan.packs:
            path = layout.pack(pack.agent, pack.pack)
            set_aside(vfs, path, os.path.join(quarantine, "packs", pack.agent))
        for relative in self.plan.scratch:
            parent = os.path.join(quarantine, os.path.dirname(relative))
            set_aside(vfs, os.path.join(layout.kai, relative), parent)


def set_aside(vfs: Vfs, path: str, directory: str) -> None:
    """Move a file or directory into the quarantine, under its own name."""
    if not os.path.lexists(path):
        return
    vfs.make_dirs(directory)
    vfs.rename(path, os.path.join(directory, os.path.basename(path)))
    vfs.sync_dir(directory)
    vfs.sync_dir(os.path.dirname(path))


def _moved(link: Link, moved: dict[bytes, Place]) -> Link:
    place = moved.get(link.record.digest)
    return link if place is None else replace(link, place=place)


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _is_name(name: str) -> bool:
    try:
        return check_name("agent", name) == name
    except InvalidName:
        return False
