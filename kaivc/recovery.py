"""Find the bytes of what is missing: in other packs, in files, in what other objects say; versions that no op names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from kaivc import versions
from kaivc.errors import KaiError
from kaivc.healing import Donors, tag_of
from kaivc.names import tag_name, tags_prefix
from kaivc.repository import OpenHome
from kaivc.stock import Source, Stock
from kaivc.storage.bases import DEEPEST
from kaivc.storage.gather import Place
from kaivc.storage.gitobjects import Kind, ObjectFormat, decode_commit, decode_tag
from kaivc.storage.pack import RecordKind


class Recovery:
    """Works on all agents of a home: one may have what another lost."""

    def __init__(self, home: OpenHome, object_format: ObjectFormat, stocks: Mapping[str, Stock]) -> None:
        self._home = home
        self._layout = home.layout
        self._format = object_format
        self._stocks = stocks
        self._made: Donors | None = None

    def heal(self, stock: Stock) -> None:
        """Look for what is missing until nothing more is found: a tree that is back may miss files of its own."""
        while True:
            missing = stock.missing(stock.refs)
            if not missing:
                break
            if not sum([self._find(stock, oid, kind, ref) for oid, (kind, ref) in missing.items()]):
                break
        stock.lost = sorted(missing)

    def _find(self, stock: Stock, oid: bytes, kind: int, ref: str) -> bool:
        return self._find_whole(stock, oid, kind, ref) or self._through_base(stock, oid, kind, ref)

    def _through_base(self, stock: Stock, oid: bytes, kind: int, ref: str, depth: int = 0) -> bool:
        """By a record that is whole, once the one that it is encoded with is found again."""
        for place in stock.facts.waiting.get(oid, ()):
            is_list = place.kind == RecordKind.CHUNK_LIST
            if kind != (Kind.BLOB if is_list else place.kind) or place.base is None or depth > DEEPEST:
                continue
            found = stock.has(place.base, kind) or self._find_whole(stock, place.base, kind, ref)
            if not found and not self._through_base(stock, place.base, kind, ref, depth + 1):
                continue
            if is_list and place.base in stock.files:
                continue  # the file says nothing of how it was cut
            with suppress(KaiError, OSError):
                data = stock.through(place)
                if is_list or self._format.hash(Kind(kind), data) == oid:
                    origin = "its record, and what that is encoded with"
                    stock.sources[oid] = Source(place.kind, partial(stock.through, place), origin, len(data))
                    if not is_list or stock.is_whole(oid):
                        return True
                    del stock.sources[oid]
        return False

    def _find_whole(self, stock: Stock, oid: bytes, kind: int, ref: str) -> bool:
        if any(self._from_other(stock, other, oid, kind) for other in self._stocks.values() if other is not stock):
            return True
        if kind == Kind.BLOB:
            return self._from_files(stock, oid)
        data, origin = None, "its view"
        if kind == Kind.TREE:
            data = self._look().tree(oid)
        elif kind == Kind.COMMIT:
            data = self._look().commit(oid, stock.chain)
        elif kind == Kind.TAG:
            data, origin = self._tag_again(stock, oid, ref), "its commit"
        if data is None:
            return False
        stock.sources[oid] = Source(kind, lambda: data, origin, len(data))
        return True

    def _from_other(self, stock: Stock, other: Stock, oid: bytes, kind: int) -> bool:
        """The same record in the packs of another agent."""
        if not other.has(oid, kind) or oid in other.files or oid not in other.facts.objects:
            return False
        place = other.facts.objects[oid]
        self._copy_from(stock, other, oid)
        if place.kind == RecordKind.CHUNK_LIST:
            for chunk_id, _ in other.listed(oid):
                if chunk_id not in stock.facts.objects:
                    self._copy_from(stock, other, chunk_id)
        return True

    def _copy_from(self, stock: Stock, other: Stock, oid: bytes) -> None:
        place = other.facts.objects[oid]
        origin = f"the packs of {other.name}"
        stock.sources[oid] = Source(place.kind, lambda: other.content(place), origin, place.size)

    def _tag_again(self, stock: Stock, wanted: bytes, ref: str) -> bytes | None:
        """A tag says what its commit says: made again, it has the same id."""
        name = tag_name(ref) or ""
        for target in self._commits(stock):
            with suppress(KaiError):
                commit = decode_commit(stock.read(target), stock.format.width)
                _, trailers = versions.parse_message(commit.message)
                if name.endswith(f"/v{trailers.get('Kai-Version')}"):
                    data = tag_of(commit, target, name)
                    if stock.format.hash(Kind.TAG, data) == wanted:
                        return data
        return None

    def _commits(self, stock: Stock) -> list[bytes]:
        """Every commit that can be had; those that `current` ever named are looked for first."""
        held: dict[bytes, Place | Source] = {**stock.facts.objects, **stock.sources}
        for oid in {move.new for link in stock.chain.links for move in link.record.moves if move.new is not None}:
            if oid not in held and (data := self._look().commit(oid, stock.chain)) is not None:
                stock.sources[oid] = Source(RecordKind.COMMIT, _constant(data), "its view", len(data))
        held |= stock.sources
        return [oid for oid, it in held.items() if it.kind == RecordKind.COMMIT]

    def _from_files(self, stock: Stock, oid: bytes) -> bool:
        donor = self._look().file(oid)
        if donor is not None:
            stock.files[oid] = donor
            return True
        place = stock.facts.objects.get(oid)
        if place is None or place.kind != RecordKind.CHUNK_LIST:
            return False
        listing = stock.listed(oid)
        wanted = {it for it, _ in listing if it not in stock.facts.objects and it not in stock.sources}
        found = self._look().chunks(listing, wanted)
        if found.keys() != wanted:
            return False
        for it in found.values():
            stock.sources[it.id] = Source(RecordKind.CHUNK, it.read, "a file that holds it", it.size)
        return bool(found)

    def _look(self) -> Donors:
        if self._made is None:
            views, workspaces = [], []
            for name in self._stocks:
                directory = self._layout.versions(name)
                listed = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
                views += [os.path.join(directory, it) for it in listed if not it.startswith(".")]
                workspaces.append(self._home.local.workspaces.get(name) or self._layout.workspace(name))
            self._made = Donors(self._format, views, workspaces, self._home.progress)
        return self._made

    def bring_back(self, stock: Stock) -> None:
        """Tags that no op names: of versions whose op record is lost."""
        if stock.old is not None and stock.old.row is not None and stock.old.refs_whole:
            return
        found: dict[str, list[bytes]] = {}
        moved = {move.new for link in stock.chain.links for move in link.record.moves}
        for oid, place in stock.facts.objects.items():
            if oid in moved:  # a version, or what was fetched and is none here
                continue
            if place.kind == RecordKind.TAG and (name := self._tag_name(stock, oid)) is not None:
                found.setdefault(name, []).append(oid)
        named = set(stock.refs)
        named |= {move.ref for link in stock.chain.links for move in link.record.moves}
        for name, oids in sorted(found.items()):
            if name in named:
                continue
            if len(oids) == 1 and not stock.missing({name: oids[0]}):
                stock.refs[name] = oids[0]
                stock.brought_back.append(name)
            else:
                stock.lost_versions.append(name)

    def _tag_name(self, stock: Stock, oid: bytes) -> str | None:
        """The ref that a tag object is for, if it is one of this agent's versions and says what its commit says."""
        try:
            width = stock.format.width
            tag = decode_tag(stock.read(oid), width)
            commit = decode_commit(stock.read(tag.target), width)
            _, trailers = versions.parse_message(commit.message)
        except (KeyError, KaiError):
            return None
        ref = "refs/tags/" + tag.name
        if (
            not ref.startswith(tags_prefix(stock.name))
            or ref != f"{tags_prefix(stock.name)}v{trailers.get('Kai-Version')}"
        ):
            return None
        return ref


def _constant(data: bytes) -> Callable[[], bytes]:
    return lambda: data
