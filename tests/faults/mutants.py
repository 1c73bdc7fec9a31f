"""Deliberate mistakes. Each, alone, must be caught by the crash states of its story."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import pytest

from kaivc import inforce, intents, refs, repository
from kaivc.layout import link_target
from kaivc.names import RefUpdate
from kaivc.repository import Landed, Repository
from kaivc.storage import journal, switching
from kaivc.storage.catalog import Catalog
from kaivc.storage.gc import pack_path
from kaivc.storage.journal import Op
from kaivc.storage.writer import StoreWriter
from kaivc.vfs import Path, Vfs
from kaivc.views import View
from kaivc.workspace import Applier
from tests.faults.recording import Recording


@dataclass(frozen=True)
class Mutant:
    """A mistake, the story that shows it, and how it is made."""

    name: str
    story: str
    make: Callable[[pytest.MonkeyPatch], None]


def _no_sync_of(wanted: Callable[[str], bool]) -> Callable[[pytest.MonkeyPatch], None]:
    """Let ``Vfs.sync`` do nothing for paths of a kind."""

    def make(patch: pytest.MonkeyPatch) -> None:
        real = Recording.sync

        def sync(self: Recording, fd: int) -> None:
            if not wanted(os.readlink(f"/proc/self/fd/{fd}")):
                real(self, fd)

        patch.setattr(Recording, "sync", sync)

    return make


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)


def _no_sync_of_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "sync_disk", lambda _: None)


def _catalog_before_pack(patch: pytest.MonkeyPatch) -> None:
    """Names first, bytes after."""
    land, sync = Repository.land, StoreWriter.sync

    def late(self: StoreWriter) -> None:
        # Everything as if it were synced: the catalog is told of bytes that are on their way.
        self._add_small()
        self._append_missing_ops(self._open_pack())
        self._open_pack().writer.flush()
        self._open_pack().writer.synced = self._open_pack().writer.end

    def landed(self: Repository, writer: StoreWriter, *args: Any, **words: Any) -> Landed:
        patch.setattr(StoreWriter, "sync", late)
        try:
            return land(self, writer, *args, **words)
        finally:
            patch.setattr(StoreWriter, "sync", sync)
            if writer._pack is not None:
                writer._pack.writer._vfs.sync(writer._pack.writer._fd)

    patch.setattr(Repository, "land", landed)


def _catalog_not_durable(patch: pytest.MonkeyPatch) -> None:
    real = Catalog.transaction

    def transaction(
        self: Catalog, op_id: str = "", *, durable: bool = True
    ) -> AbstractContextManager[sqlite3.Connection]:
        return real(self, op_id, durable=False)

    patch.setattr(Catalog, "transaction", transaction)


def _link_before_catalog(patch: pytest.MonkeyPatch) -> None:
    real = Repository.land

    def land(self: Repository, writer: StoreWriter, updates: Sequence[RefUpdate], *args: Any, **words: Any) -> Landed:
        for update in updates:
            if update.name.startswith("refs/tags/"):
                self.vfs.swap_link(
                    link_target(update.name.rpartition("/")[2]), self.layout.current(self.name), sync=True
                )
        return real(self, writer, updates, *args, **words)

    patch.setattr(Repository, "land", land)


def _intent_gone_before_effect(patch: pytest.MonkeyPatch) -> None:
    real = intents._restore

    def restore(repo: Repository, row: Any, **words: Any) -> None:
        with repo.catalog.transaction() as db:
            journal.drop_intents(db, repo.id, [row.id])
        real(repo, row, **words)

    patch.setattr(intents, "_restore", restore)


def _restore_may_be_done_again(patch: pytest.MonkeyPatch) -> None:
    """That the workspace is restored is not on the disk when it is acknowledged."""
    real = intents._restore

    def restore(repo: Repository, row: Any, **words: Any) -> None:
        real(repo, row, **words)
        patch.setattr(Catalog, "transaction", not_durable)

    def not_durable(self: Catalog, op_id: str = "", *, durable: bool = True) -> AbstractContextManager[Any]:
        patch.setattr(Catalog, "transaction", transaction)
        return transaction(self, op_id, durable=False)

    transaction = Catalog.transaction
    patch.setattr(intents, "_restore", restore)


def _workspace_not_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Applier, "_sync", lambda *_: None)


def _seals_of_another_start(patch: pytest.MonkeyPatch) -> None:
    """What was seen before the machine was started is believed."""
    patch.setattr(inforce, "settle", lambda _: None)
    patch.setattr(View, "check", lambda *_, **__: [])


def _nothing_settled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inforce, "settle", lambda _: None)


def _undo_it() -> None:
    raise InterruptedError


def _op_before_its_transaction(patch: pytest.MonkeyPatch) -> None:
    """The chain in the pack is ahead of the catalog's."""
    real = refs.apply

    def land(
        self: Repository,
        writer: StoreWriter,
        updates: Sequence[RefUpdate],
        op: Op,
        todo: Sequence[repository.Intent] = (),
        also: Callable[[sqlite3.Connection], None] | None = None,
    ) -> Landed:
        record: list[bytes] = []

        with suppress(InterruptedError), self.catalog.transaction() as db:
            record.append(real(self.catalog, db, self.home.id, self.row(), updates, op)[1])
            _undo_it()
        added = dict(writer._new)
        writer.append_op(record[0])
        writer._new.update(added)
        return landed(self, writer, updates, op, todo, also)

    landed = Repository.land
    patch.setattr(Repository, "land", land)


def _packs_go_before_their_rows(patch: pytest.MonkeyPatch) -> None:
    """gc unlinks what the catalog still names."""
    real = switching.switch

    def switch(store: Any, db: sqlite3.Connection, contents: Any, dead: Any, packs: Any) -> None:
        for name in packs:
            store.vfs.unlink(pack_path(store, name), missing_ok=True)
        store.vfs.sync_dir(store.place.layout.pack_dir(store.place.agent))
        real(store, db, contents, dead, packs)

    patch.setattr(switching, "switch", switch)


def _replaced_in_place(patch: pytest.MonkeyPatch) -> None:
    """A small file is overwritten where it lies."""

    def replace(self: Vfs, path: str, data: bytes, mode: int = 0o600) -> None:
        self.unlink(path, missing_ok=True)
        fd = self.create(path, mode)
        self.write(fd, data)
        self.close(fd)

    patch.setattr(Vfs, "replace", replace)


def _agent_named_before_its_directory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Recording, "sync_dir", _only_elsewhere(Recording.sync_dir, lambda path: path.endswith("recorded")))
    _no_sync_of_all(patch)


def _only_elsewhere(
    real: Callable[[Recording, Path], None], there: Callable[[str], bool]
) -> Callable[[Recording, Path], None]:
    def sync_dir(self: Recording, path: Path) -> None:
        if not there(os.fsdecode(path)):
            real(self, path)

    return sync_dir


MUTANTS = (
    Mutant("no sync of packs", "commit", _no_sync_of(lambda path: path.endswith(".pack"))),
    Mutant("no sync of packs in gc", "gc", _no_sync_of(lambda path: path.endswith(".pack"))),
    Mutant("no sync of a new pack's name", "import", _no_sync_of(_is_directory)),
    Mutant("no sync of directories in a rollback", "rollback", _no_sync_of(_is_directory)),
    Mutant("no sync of directories in init", "init", _no_sync_of(_is_directory)),
    Mutant("no sync of staged files", "rollback", _no_sync_of(lambda path: "/staging/" in path)),
    Mutant("no sync of many staged files", "rollback-many", _no_sync_of_all),
    Mutant("no sync of an agent's first files", "new", _no_sync_of_all),
    Mutant("no sync of the agent's directory", "import", _agent_named_before_its_directory),
    Mutant("no sync of a new catalog's name", "repair", _no_sync_of(_is_directory)),
    Mutant("catalog before pack", "commit", _catalog_before_pack),
    Mutant("catalog not durable", "rollback", _catalog_not_durable),
    Mutant("link before catalog", "commit", _link_before_catalog),
    Mutant("intent deleted before its effect", "rollback", _intent_gone_before_effect),
    Mutant("restore may be done again", "rollback, live", _restore_may_be_done_again),
    Mutant("no sync of a token's revocation", "revoke", _no_sync_of(_is_directory)),
    Mutant("restored names not synced", "rollback", _workspace_not_synced),
    Mutant("views of another start believed", "commit", _seals_of_another_start),
    Mutant("nothing looked after at a start", "rollback", _nothing_settled),
    Mutant("op record before its transaction", "commit", _op_before_its_transaction),
    Mutant("packs go before their rows", "gc", _packs_go_before_their_rows),
    Mutant("settings overwritten in place", "init", _replaced_in_place),
)
