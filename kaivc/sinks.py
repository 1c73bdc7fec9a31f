"""Where the bytes of captured files go: a store's writer, or only a hash."""

from __future__ import annotations

from typing import Protocol

from kaivc.names import ObjectId
from kaivc.storage.chunking import Source
from kaivc.storage.gitobjects import Kind, ObjectFormat


class BlobSink(Protocol):
    """Takes the bytes of files: a store's writer, or only a hash."""

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:
        """Take ``size`` bytes, of which blob ``like`` perhaps holds the most; their id."""

    def contains(self, oid: bytes) -> bool:
        """Whether the bytes of that id need not be read again."""


class HashSink:
    """Hashes, and keeps nothing."""

    def __init__(self, object_format: ObjectFormat) -> None:
        self._format = object_format

    def put_blob(self, source: Source, size: int, like: ObjectId | None = None) -> ObjectId:  # noqa: ARG002 - a sink's
        """The id of ``size`` bytes."""
        digest = self._format.header(Kind.BLOB, size)
        while piece := source.read(1 << 20):
            digest.update(piece)
        return ObjectId(digest.digest())

    def put(self, kind: Kind, data: bytes, like: ObjectId | None = None) -> ObjectId:  # noqa: ARG002 - a sink's
        """The id of a whole object."""
        return self._format.hash(kind, data)

    def contains(self, oid: bytes) -> bool:
        """All is known that is to be."""
        return bool(oid)


class BytesSource:
    """Bytes as a source."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int, /) -> bytes:
        """At most ``size`` of what is left."""
        data, self._data = self._data[:size], self._data[size:]
        return data
