"""How an agent's refs are named in a git repository.

A repository of one agent has the short names: branch ``current``, tags ``vX.Y.Z``, branches ``snapshots/ID``. One of
several has those that a home has: ``AGENT/current``, ``AGENT/vX.Y.Z``. Which it is is seen by what is there; where
nothing is, the first agent gets the short names. Whose the short names are stands in the tags' own bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from kaivc import landing
from kaivc.errors import KaiError
from kaivc.names import heads_prefix, is_name, tags_prefix
from kaivc.remotes.gitlines import Read, malformed
from kaivc.storage.gitobjects import FORMATS, decode_tag

SHORT_CURRENT = "refs/heads/current"
_SHORT_TAG = re.compile(r"refs/tags/v[0-9][^/]*\Z")
_FULL = re.compile(r"refs/(?:heads/([^/]+)/current|tags/([^/]+)/v[0-9][^/]*)\Z")
_FOLDERS = ("snapshots", "backups")
MAX_ENTRIES = 100_000
MAX_SKIPPED = 64 << 20
MAX_TAG = 64 << 10
PIECE = 4096
_COMMIT, _TAG, _OFS_DELTA, _REF_DELTA = 1, 4, 6, 7
"""Kinds as they stand in a git pack."""


def full_agents(refs: Mapping[str, bytes]) -> tuple[str, ...]:
    """The agents that have their names in the repository's refs."""
    found = set()
    for ref in refs:
        match = _FULL.match(ref)
        name = (match[1] or match[2]) if match else None
        if name is not None and is_name(name) and not (match and match[1] in _FOLDERS):
            found.add(name)
    return tuple(sorted(found))


def short_tag(refs: Mapping[str, bytes]) -> bytes | None:
    """The id of a tag that has a short name, if there is one."""
    return next((oid for ref, oid in sorted(refs.items()) if _SHORT_TAG.match(ref)), None)


def theirs(agent: str, ref: str, *, short: bool) -> str:
    """What a ref of ours is called over there."""
    if not short:
        return ref
    for prefix, kind in ((heads_prefix(agent), "refs/heads/"), (tags_prefix(agent), "refs/tags/")):
        if ref.startswith(prefix):
            return kind + ref.removeprefix(prefix)
    raise ValueError(ref)


def ours(agent: str, refs: Mapping[str, bytes], *, short: bool) -> dict[str, bytes]:
    """The refs of an agent among those over there, by our names."""
    found = {}
    for ref, oid in refs.items():
        name = ref
        if short:
            kind = ref.split("/", 2)[1]
            prefix = {"heads": heads_prefix(agent), "tags": tags_prefix(agent)}.get(kind)
            name = prefix + ref.split("/", 2)[2] if prefix else ""
        if landing.may_travel(agent, name):
            found[name] = oid
    return found


# ---------------------------------------------------------------- whose the short names are


def owner_in(read: Read, object_format: str) -> str | None:
    """The agent that the first tag of a pack names; what comes behind it is not read."""
    pack = _Entries(read)
    for _ in range(pack.count):
        kind, data = pack.entry()
        if kind == _TAG:
            try:
                name = decode_tag(data, FORMATS[object_format].width).name
            except KaiError:
                return None
            agent, slash, _ = name.partition("/")
            return agent if slash and is_name(agent) else None
        if kind not in (_COMMIT, _OFS_DELTA, _REF_DELTA):
            return None  # git sends tags before trees
    return None


class _Entries:
    """The entries of a pack, as far as they are asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._held = b""
        self._left = MAX_SKIPPED
        magic, version, count = struct.unpack(">4sII", self._take(12))
        if magic != b"PACK" or version != 2:  # noqa: PLR2004 - the one that there is
            raise malformed("no pack")
        self.count = min(count, MAX_ENTRIES)

    def entry(self) -> tuple[int, bytes]:
        """The kind of the next one, and its content if it is a tag."""
        byte = self._take(1)[0]
        kind = byte >> 4 & 7
        while byte & 0x80:
            byte = self._take(1)[0]
        if kind == _OFS_DELTA:
            while self._take(1)[0] & 0x80:
                pass
        elif kind == _REF_DELTA:
            raise malformed("a delta of what was not sent")
        return kind, self._inflated(keep=kind == _TAG)

    def _inflated(self, *, keep: bool) -> bytes:
        unzip = zlib.decompressobj()
        kept = b""
        while not unzip.eof:
            data = self._held or self._more()
            self._held = b""
            try:
                piece = unzip.decompress(data, MAX_TAG)
                while unzip.unconsumed_tail:
                    self._left -= len(piece)
                    if self._left < 0 or keep:
                        raise malformed("a tag, or a commit, that is too large")
                    piece = unzip.decompress(unzip.unconsumed_tail, MAX_TAG)
            except zlib.error as error:
                raise malformed("a pack that cannot be read") from error
            kept += piece if keep else b""
            if len(kept) > MAX_TAG:
                raise malformed("a tag that is too large")
        self._held = unzip.unused_data
        return kept

    def _more(self) -> bytes:
        data = self._read(PIECE)
        self._left -= len(data)
        if not data or self._left < 0:
            raise malformed("a pack that ends early, or never")
        return data

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            self._held += self._more()
        data, self._held = self._held[:size], self._held[size:]
        return data
