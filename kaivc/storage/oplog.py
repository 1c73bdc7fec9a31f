"""Read the op records of an agent from where they lie, to hand them on: packs, and the catalog for the newest."""

from __future__ import annotations

from collections.abc import Iterator

from kaivc.storage import journal
from kaivc.storage.catalog import damaged
from kaivc.storage.store import ObjectStore

AT_ONCE = 256


def records(store: ObjectStore, after: int) -> Iterator[bytes]:
    """The op records behind number ``after``, oldest first; ChecksumMismatch for one that its digest does not fit."""
    agent = store.place.agent_id
    while rows := journal.ops_behind(store.catalog, agent, after, AT_ONCE):
        for row in rows:
            record = row.payload
            if record is None:
                record = store.op_record(row.pack or 0, row.offset or 0)
            if journal.digest_op(record) != row.digest:
                raise damaged(f"operation {row.seq}")
            yield record
            after = row.seq
