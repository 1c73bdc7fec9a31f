"""The parsers: each takes bytes, and returns or raises KaiError, soon; what is canonical comes back byte for byte."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from kaivc import folders, manifest, plans, revisions, versions, yamltext
from kaivc.diff.quoting import quote
from kaivc.errors import InvalidManifest, KaiError
from kaivc.ignore import IgnoreRules
from kaivc.names import Actor, Version, check_name, check_op_id
from kaivc.storage import caches, chain, packscan
from kaivc.storage.catalog import Catalog, checksum
from kaivc.storage.gitobjects import (
    SHA1,
    SHA256,
    clean_message,
    decode_commit,
    decode_tag,
    decode_tree,
    encode_commit,
    encode_tag,
    encode_tree,
)
from kaivc.storage.journal import encode_op
from kaivc.storage.pack import MAGIC, PackReader, RecordKind, _check8, scan
from tests.faults.fuzz import peers

SECONDS = 1.0
"""No input of a few kilobytes may take so long."""


BASE = b"some text\n" * 18 + b"and more"
"""What every record that needs another one finds."""


class Broken(Exception):
    """A parser that does not keep its word."""


def _same(found: bytes, data: bytes, what: str) -> None:
    if found != data:
        raise Broken(f"{what}: {data!r} came back as {found!r}")


@cache
def _scratch() -> int:
    return os.open(tempfile.mkdtemp(prefix="kai-fuzz-") + "/pack", os.O_RDWR | os.O_CREAT, 0o600)


def _pack(data: bytes) -> PackReader:
    fd = _scratch()
    os.ftruncate(fd, 0)
    os.pwrite(fd, MAGIC + data, 0)
    return PackReader(fd, "pack")


def _mended(data: bytes) -> bytes:
    """A record with checksums that fit, so that what is behind them is reached."""
    if len(data) < 18:
        return data
    header_len = min(data[4], len(data) - 17)
    payload = data[17 + header_len :]
    head = b"KR" + data[0:1] + data[1:2] + header_len.to_bytes(2, "little") + b"\0\0"
    head += len(payload).to_bytes(8, "little") + data[17 : 17 + header_len]
    return head + _check8(head)[:4] + payload + _check8(payload)


def pack_record(data: bytes) -> None:
    for record in (data, _mended(data)):
        reader = _pack(record)
        with suppress(KaiError):
            header = reader.header(len(MAGIC))
            base = BASE if header.base is not None else None
            packscan.true_id(packscan.Record(header, reader.payload(header, base)), SHA256)


def pack_scan(data: bytes) -> None:
    reader = _pack(data)
    end = packscan.size(reader)
    at = len(MAGIC)
    for item in packscan.survey(reader, at, end):
        begin = item.offset if isinstance(item, packscan.Gap) else item.header.where.offset
        if begin != at or item.end <= begin or item.end > end:
            raise Broken(f"the scan goes from {at} to {begin}, {item.end}")
        at = item.end
    packscan.footer_offset(reader, end)
    with suppress(KaiError):
        for _ in scan(reader.fd, "pack", len(MAGIC), end):
            pass


def tree(data: bytes) -> None:
    for width in (SHA1.width, SHA256.width):
        with suppress(KaiError):
            _same(encode_tree(decode_tree(data, width)), data, "tree")


def commit(data: bytes) -> None:
    for width in (SHA1.width, SHA256.width):
        with suppress(KaiError):
            found = decode_commit(data, width)
            _same(encode_commit(found), data, "commit")
            versions.of_commit("agent", SHA256.hash(cast("Any", RecordKind.COMMIT), data), found).snapshot_meta()


def tag(data: bytes) -> None:
    for width in (SHA1.width, SHA256.width):
        with suppress(KaiError):
            found = decode_tag(data, width)
            _same(encode_tag(found), data, "tag")
            versions.rfc3339(found.time)


def message(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    versions.parse_message(text)


def notes(data: bytes) -> None:
    cleaned = clean_message(versions.check_notes(data.decode("utf-8", "surrogateescape")))
    if clean_message(cleaned) != cleaned:
        raise Broken(f"a clean message is cleaned again: {cleaned!r}")


def op_record(data: bytes) -> None:
    found = chain.read_op(data)
    _same(encode_op(found.op, found.home, found.agent, found.seq, found.prev, list(found.moves)), data, "op")


def revision(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(KaiError):
        revisions.split(text)
    found = revisions.parse(text)
    if revisions.parse(str(found)) != found:
        raise Broken(f"{text!r} is {found}, which is not {revisions.parse(str(found))}")


def names(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse in (Version.parse, Actor.parse, check_op_id, lambda it: check_name("agent", it)):
        with suppress(KaiError):
            found = cast("Any", parse)(text)
            if cast("Any", parse)(str(found)) != found:
                raise Broken(f"{text!r} is {found!r}")


def kai_yaml(data: bytes) -> None:
    found = manifest.parse(data)
    for path in (b"state/a.json", b"a/b/c" * 20, data[:200]):
        found.file_class(path)
        found.state_class(path)


def yaml_text(data: bytes) -> None:
    yamltext.load(data, "source", InvalidManifest)


def kaiignore(data: bytes) -> None:
    rules = IgnoreRules.parse(data)
    for path in (b"a/b/c.txt", b"ab" * 120, data[:255], b"x/" * 60 + b"y"):
        rules.ignored(path, True)
        rules.ignored(path, False)


def settings(data: bytes) -> None:
    from kaivc import settings as texts

    with suppress(KaiError):
        texts.parse_local(data, "local.yaml")
    key, _, value = data.decode("utf-8", "surrogateescape").partition("=")
    with suppress(KaiError):
        texts.parse_flags({key: value})
    texts.Settings.layered(texts.parse(data, "config.yaml"))


@cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="kai-fuzz-")


def snapshot_meta(data: bytes) -> None:
    path = os.path.join(_folder(), "snapshot_meta.json")
    with open(path, "wb") as file:
        file.write(data)
    folders._folder(Version(1, 2, 3), _folder())


def counter(data: bytes) -> None:
    pointer, _, document = data.partition(b"\n")
    with suppress(ValueError):
        manifest.read_counter(document, pointer.decode("utf-8", "replace"))


def plan(data: bytes) -> None:
    found, backup = plans.decode_plan(data)
    plans.decode_plan(found.encode(backup))


def stat_cache(data: bytes) -> None:
    rows = [(b"", data, checksum(b"", data))]
    for listing in caches.known_files(cast("Catalog", SimpleNamespace(rows=lambda *_: rows)), 1, "boot").values():
        for known in listing.values():
            if not isinstance(known.oid, bytes) or not all(
                type(it) is int for it in (*known.signature, known.taken_ns)
            ):
                raise Broken(f"the stat cache holds {known!r}")


def chunk_list(data: bytes) -> None:
    from kaivc.settings import Settings
    from kaivc.storage.index import ObjectRow
    from kaivc.storage.store import ObjectStore

    store = ObjectStore.__new__(ObjectStore)
    store.settings = Settings()
    store.record = lambda *_: data  # type: ignore[method-assign]
    row = ObjectRow(b"", RecordKind.CHUNK_LIST, 1, 1, 1, int.from_bytes(data[:3], "little"))
    if sum(size for _, size in store.chunk_list(row)) != row.size:
        raise Broken("a chunk list of another size")


def quoted(data: bytes) -> None:
    """Git's quoting of paths: one line, printable, and read back the same."""
    found = quote(data)
    if b"\n" in found or (found != data and not found.startswith(b'"')):
        raise Broken(f"{data!r} is quoted as {found!r}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        pack_record, pack_scan, tree, commit, tag, message, notes, op_record, revision, names, kai_yaml, yaml_text,
        kaiignore, settings, snapshot_meta, counter, plan, stat_cache, chunk_list, quoted,
    )
} | peers.TARGETS  # fmt: skip


def judge(name: str, data: bytes) -> None:
    """Hand bytes to a parser; anything but an answer or a KaiError within SECONDS passes through."""
    start = time.process_time()
    with suppress(KaiError):
        TARGETS[name](data)
    took = time.process_time() - start
    if took > SECONDS:
        raise Broken(f"{name} took {took:.1f} s")
