"""The table of hostile objects: trees, links, blobs, commits, tags, records."""

# ruff: noqa: E501 - a table of inputs
from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack
import zstandard

from kaivc.storage.compression import compress_after, compress_text
from kaivc.storage.gitobjects import SHA256, Commit, Kind, encode_commit
from kaivc.storage.pack import Codec, RecordKind
from tests.faults.hostile.forge import AGENT, EVE, NOTHING, TIME, Forge, record, tree_bytes, whole

REFUSED, HARMLESS, STRANGE = "refused", "harmless", "strange"
"""Nothing of it may be written and every check must name it; it is a version like others; a typed answer, whichever."""


@dataclass(frozen=True)
class Case:
    """One hostile input; ``build`` places it. ``codes`` are the errors that may refuse it."""

    name: str
    build: Callable[[Forge], object]
    expect: str = REFUSED
    codes: frozenset[str] = frozenset(["E101", "E102", "E104", "E305", "E308", "E309"])
    skip: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


# ---------------------------------------------------------------- names in trees

NAMES = {
    "empty name": b"",
    "dot": b".",
    "dot dot": b"..",
    "absolute": b"/etc/passwd",
    "slash inside": b"a/../../canary/secret.txt",
    "trailing slash": b"a/",
    "dotgit": b".git",
    "dotgit upper": b".GIT",
    "dotgit mixed": b".gIt",
    "ntfs short": b"git~1",
    "ntfs short upper": b"GIT~1",
    "ntfs stream": b".git::$INDEX_ALLOCATION",
    "ntfs stream short": b"git~1:$DATA",
    "dotgit trailing dot": b".git.",
    "dotgit trailing space": b".git ",
    "dotgit dots and spaces": b".GIT. . .",
    "dotgit behind a backslash": b"a\\.git",
    "hfs zero width non-joiner": ".g\u200cit".encode(),
    "hfs left-to-right mark first": "\u200e.git".encode(),
    "hfs bom last": ".git\ufeff".encode(),
    "hfs deprecated": ".gi\u206et".encode(),
    "hfs right-to-left override": ".\u202egit".encode(),
    "dotkai": b".kai",
    "dotkai upper": b".KAI",
    "dotkai trailing dot": b".kai.",
    "dotkai stream": b".kai::$INDEX_ALLOCATION",
    "hfs dotkai": ".k\u200dai".encode(),
    "4096 bytes": b"n" * 4096,
    "a name of 256 bytes": b"n" * 256,
    "reserved": b"snapshot_meta.json",
}


def _named(name: bytes) -> Callable[[Forge], object]:
    return lambda it: it.version(it.tree((b"100644", name, it.blob(b"evil\n"))))


def _directory_named(name: bytes) -> Callable[[Forge], object]:
    return lambda it: it.version(it.tree((b"40000", name, it.files(config=b"[core]\n"))))


def _below(name: bytes) -> Callable[[Forge], object]:
    return lambda it: it.version(it.tree((b"40000", b"src", it.tree((b"100644", name, it.blob(b"evil\n"))))))


def _tree(*entries: tuple[bytes, bytes], blob: bytes = b"evil\n") -> Callable[[Forge], object]:
    """(mode, name); directories hold one file."""

    def build(it: Forge) -> object:
        below = it.files(a=b"a\n")
        return it.version(
            it.tree(*((mode, name, below if mode == b"40000" else it.blob(blob)) for mode, name in entries))
        )

    return build


def _raw_tree(data: bytes) -> Callable[[Forge], object]:
    return lambda it: it.version(it.put(Kind.TREE, data))


MODES = {
    "gitlink": b"160000",
    "setuid": b"104755",
    "setgid": b"102644",
    "sticky": b"101644",
    "group writable": b"100664",
    "world writable": b"100777",
    "character device": b"20644",
    "fifo": b"10644",
    "socket": b"140644",
    "no mode": b"0",
    "leading zero": b"0100644",
    "directory with a zero": b"040000",
    "not octal": b"100698",
    "not digits": b"10064x",
    "negative": b"-100644",
    "superscript": "\u00b2".encode(),
    "huge": b"7" * 40,
    "hexadecimal": b"0x81a4",
}

TREES = [
    *(Case(f"name: {label}", _named(name)) for label, name in NAMES.items()),
    *(Case(f"directory: {label}", _directory_named(NAMES[label])) for label in ("dotgit", "dot dot", "dotkai")),
    *(Case(f"below: {label}", _below(NAMES[label])) for label in ("dotgit upper", "dot dot", "absolute", "dotkai")),
    *(Case(f"mode: {label}", _tree((mode, b"logic.py"))) for label, mode in MODES.items()),
    Case("NUL for a name", _raw_tree(b"100644 \0\0" + NOTHING)),
    Case("twice the same name", _tree((b"100644", b"a"), (b"100644", b"a"))),
    Case("a file and a directory of one name", _tree((b"100644", b"a"), (b"40000", b"a"))),
    Case("a link and a directory of one name", _tree((b"120000", b"a"), (b"40000", b"a"), blob=b"../../canary")),
    Case("a link and a directory apart", _tree((b"120000", b"a"), (b"100644", b"a.b"), (b"40000", b"a"), blob=b"b")),
    Case("out of order", _tree((b"100644", b"b"), (b"100644", b"a"))),
    Case("ordered as names, not as git", _tree((b"40000", b"a"), (b"100644", b"a.b"))),
    Case("no space", _raw_tree(b"100644")),
    Case("no NUL", _raw_tree(b"100644 name")),
    Case("id cut short", _raw_tree(b"100644 name\0" + NOTHING[:31])),
    Case("ids of the other format", _raw_tree(b"100644 name\0" + NOTHING[:20])),
    Case(
        "trailing bytes", lambda it: it.version(it.put(1 + 1, tree_bytes([(b"100644", b"a", it.blob(b"a"))]) + b"\0"))
    ),
    Case("a name without an end", _raw_tree(b"100644 " + b"n" * (1 << 20))),
    Case("empty tree", _raw_tree(b""), HARMLESS),
    Case("empty directory", lambda it: it.version(it.tree((b"40000", b"a", it.put(Kind.TREE, b"")))), STRANGE),
    Case("case collision", _tree((b"100644", b"README"), (b"100644", b"readme")), STRANGE),
    Case("normal forms collide", _tree((b"100644", "e\u0301".encode()), (b"100644", "\u00e9".encode())), STRANGE),
    Case("not UTF-8", _tree((b"100644", b"\xff\xfe")), HARMLESS),
    Case("a half of a surrogate pair", _tree((b"100644", b"\xed\xa0\x80")), HARMLESS),
    Case("leading dash", _tree((b"100644", b"--upload-pack=x")), HARMLESS),
    Case("device names", _tree((b"100644", b"aux"), (b"100644", b"con.txt")), HARMLESS),
    Case("escapes in a name", _tree((b"100644", b"\x1b]0;owned\x07\x1b[2J\r\nroot#")), HARMLESS),
    Case("overrides in a name", _tree((b"100644", "gpj\u202eexe.txt\u2066".encode())), HARMLESS),
    Case("C1 in a name", _tree((b"100644", "a\u009b2Jb".encode())), HARMLESS),
]


# ---------------------------------------------------------------- links


def _links(**links: bytes) -> Callable[[Forge], object]:
    """Names with two underscores have a slash there."""

    def build(it: Forge) -> object:
        top: dict[bytes, bytes] = {}
        below: dict[bytes, dict[bytes, bytes]] = {}
        for name, target in links.items():
            first, _, rest = name.encode().partition(b"__")
            if rest:
                below.setdefault(first, {})[rest] = target
            else:
                top[first] = target
        entries = [(b"120000", each, it.blob(target)) for each, target in top.items()]
        for directory, inside in below.items():
            tree = it.tree(*((b"120000", each, it.blob(target)) for each, target in sorted(inside.items())))
            entries.append((b"40000", directory, tree))
        return it.version(it.tree(*sorted(entries, key=lambda e: e[1] + b"/" * (e[0] == b"40000"))))

    return build


LINKS = [
    Case("link: absolute", _links(a=b"/etc/passwd")),
    Case("link: to the parent", _links(a=b"..")),
    Case("link: out of the tree", _links(a=b"../../canary/secret.txt")),
    Case("link: out from below", _links(d__a=b"../../canary")),
    Case("link: out by a detour", _links(a=b"x/../../../../../canary")),
    Case("link: out through another", _links(a=b"d/b/..", d__b=b"../c", c=b"..")),
    Case("link: a chain that leaves", _links(a=b"b", b=b"c", c=b"d", d=b"../canary")),
    Case("link: empty", _links(a=b"")),
    Case("link: with NUL", _links(a=b"b\0c")),
    Case("link: of 5,000 bytes", _links(a=b"x/" * 2500)),
    Case("link: of 64 MiB", lambda it: it.version(it.tree((b"120000", b"a", it.blob(bytes(64 << 20)))))),
    Case("link: to a tree", lambda it: it.version(it.tree((b"120000", b"a", it.files(a=b"a"))))),
    Case("link: to itself", _links(a=b"a"), HARMLESS),
    Case("link: a loop of two", _links(a=b"b", b=b"a"), HARMLESS),
    Case("link: dangling", _links(a=b"nowhere"), HARMLESS),
    Case("link: forty of them", _links(**{f"l{n}": f"l{n + 1}".encode() for n in range(60)}), HARMLESS),
    Case("link: doubling", _links(**{f"l{n}": f"l{n + 1}/../l{n + 1}".encode() for n in range(30)}), STRANGE),
    Case("link: many slow ones", _links(**{f"l{n:04}": b"l0000/" * 600 for n in range(60)}), STRANGE),
    Case("link: with escapes", _links(a=b"\x1b[31m\x07"), HARMLESS),
    Case(
        "link: stands for kai.yaml",
        lambda it: it.version(it.tree((b"120000", b"kai.yaml", it.blob(b"logic.py")))),
        STRANGE,
    ),
]


# ---------------------------------------------------------------- sizes and bombs


def _frame(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(level=19, **options).compress(data)  # type: ignore[arg-type]


def _bomb(size: int) -> bytes:
    """A frame that states and holds ``size`` zeros."""
    return zstandard.ZstdCompressor(level=1).compress(bytes(size))


def _wide(it: Forge, levels: int, width: int, leaf: bytes, mode: bytes = b"40000") -> bytes:
    """Directories of ``width`` entries that are all the same one, ``levels`` deep."""
    oid = leaf
    for level in range(levels):
        kind = b"40000" if level else mode
        oid = it.tree(*((kind, b"%04d" % number, oid) for number in range(width)))
    return oid


def _deep(it: Forge, levels: int) -> bytes:
    oid = it.files(a=b"a\n")
    for _ in range(levels):
        oid = it.tree((b"40000", b"d", oid))
    return oid


def _stored(
    kind: int, stored: Callable[[bytes], bytes], size: int, id_: bytes = b"\7" * 32
) -> Callable[[Forge], object]:
    """A tree whose one file is a record as it is told."""

    def build(it: Forge) -> object:
        it.raw(id_, kind, stored(id_), size)
        return it.version(it.tree((b"100644", b"logic.py", id_)))

    return build


def _record(payload: bytes, size: int, codec: int = Codec.ZSTD, row: int | None = None) -> Callable[[Forge], object]:
    return _stored(
        Kind.BLOB, lambda id_: record(Kind.BLOB, id_, payload, size, codec=codec), size if row is None else row
    )


def _tree_record(payload: bytes, size: int, row: int | None = None) -> Callable[[Forge], object]:
    def build(it: Forge) -> object:
        id_ = b"\x09" * 32
        it.raw(id_, Kind.TREE, record(Kind.TREE, id_, payload, size, codec=Codec.ZSTD), size if row is None else row)
        return it.version(id_)

    return build


def _cycle(width: int) -> Callable[[Forge], object]:
    def build(it: Forge) -> object:
        id_ = b"\x0a" * 32
        it.put(Kind.TREE, tree_bytes((b"40000", b"%02d" % number, id_) for number in range(width)), id_)
        return it.version(id_)

    return build


def _self_cycle_of_two(it: Forge) -> object:
    one, two = b"\x0b" * 32, b"\x0c" * 32
    it.put(Kind.TREE, tree_bytes([(b"40000", b"a", two), (b"40000", b"b", two)]), one)
    it.put(Kind.TREE, tree_bytes([(b"40000", b"a", one), (b"40000", b"b", one)]), two)
    return it.version(one)


def _chunked(pairs: Callable[[Forge], object], size: int) -> Callable[[Forge], object]:
    """A file that is a list of chunks."""

    def build(it: Forge) -> object:
        id_ = b"\x0d" * 32
        data = msgpack.packb(pairs(it))
        stored = record(RecordKind.CHUNK_LIST, id_, _frame(data), len(data), codec=Codec.ZSTD)
        it.raw(id_, RecordKind.CHUNK_LIST, stored, size)
        return it.version(it.tree((b"100644", b"logic.py", id_)))

    return build


def _chunk(it: Forge, data: bytes) -> bytes:
    import hashlib

    id_ = hashlib.sha256(data).digest()
    return it.raw(id_, RecordKind.CHUNK, record(RecordKind.CHUNK, id_, data), len(data))


LIST = b"\x0d" * 32
SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"evil"

BOMBS = [
    Case("10^10 files", lambda it: it.version(_wide(it, 10, 10, it.blob(b"x"), b"100644"))),
    Case("10^18 empty directories", lambda it: it.version(_wide(it, 6, 1000, it.put(Kind.TREE, b"")))),
    Case("2^100 directories", lambda it: it.version(_wide(it, 100, 2, it.files(a=b"a")))),
    Case("2^100 directories, nothing below", lambda it: it.version(_wide(it, 100, 2, it.put(Kind.TREE, b"")))),
    Case("2^100 directories, the last missing", lambda it: it.version(_wide(it, 100, 2, NOTHING))),
    Case("2^100 directories, the blob missing", lambda it: it.version(_wide(it, 100, 2, NOTHING, b"100644"))),
    Case("3,000 deep", lambda it: it.version(_deep(it, 3000))),
    Case("129 deep", lambda it: it.version(_deep(it, 129))),
    Case("120 deep", lambda it: it.version(_deep(it, 120)), HARMLESS),
    Case("longer paths than any disk has", lambda it: it.version(_long(it, 40))),
    Case("a tree of itself", _cycle(1)),
    Case("a tree of itself, 30 times", _cycle(30)),
    Case("two trees of each other", _self_cycle_of_two),
    Case("a tree that is a blob", lambda it: it.version(it.blob(b"not a tree"))),
    Case("a tree that is a commit", lambda it: it.version(it.repo.current or b"")),
    Case("a file that is a tree", lambda it: it.version(it.tree((b"100644", b"logic.py", it.files(a=b"a"))))),
    Case("a directory that is a blob", lambda it: it.version(it.tree((b"40000", b"logic.py", it.blob(b"a"))))),
    Case("a file that is not there", lambda it: it.version(it.tree((b"100644", b"logic.py", NOTHING)))),
    Case("a tree that is not there", lambda it: it.version(NOTHING)),
    Case(
        "a file under a false id",
        lambda it: it.version(it.tree((b"100644", b"logic.py", it.put(Kind.BLOB, b"other", b"\x0e" * 32)))),
    ),
    Case("a tree under a false id", lambda it: it.version(it.put(Kind.TREE, b"", b"\x0f" * 32))),
    Case("zstd: states more than it holds", _record(_frame(b"x" * 100), 1000)),
    Case("zstd: holds more than the index says", _record(_frame(b"x" * 1000), 1000, row=10)),
    Case("zstd: a bomb of 1 GiB under a small size", _record(_bomb(1 << 30), 1000)),
    Case("zstd: a bomb of 1 GiB under a small row", _record(_bomb(1 << 30), 1 << 30, row=1000)),
    Case("zstd: a tree of 1 GiB", _tree_record(_bomb(1 << 30), 1 << 30)),
    Case("zstd: a tree of 1 GiB under a small row", _tree_record(_bomb(1 << 30), 1 << 30, 64)),
    Case("zstd: a tree of 200 MiB", _tree_record(_bomb(200 << 20), 200 << 20)),
    Case("zstd: no size", _record(_frame(b"x" * 1000, write_content_size=False), 1000)),
    Case("zstd: trailing bytes", _record(_frame(b"x" * 1000) + b"tail", 1000)),
    Case("zstd: two frames", _record(_frame(b"x" * 500) + _frame(b"x" * 500), 1000)),
    Case("zstd: a skippable frame first", _record(SKIPPABLE + _frame(b"x" * 1000), 1000)),
    Case("zstd: a skippable frame last", _record(_frame(b"x" * 1000) + SKIPPABLE, 1000)),
    Case("zstd: only a skippable frame", _record(SKIPPABLE, 4)),
    Case(
        "zstd: a dictionary",
        _record(
            _frame(
                b"x" * 1000,
                dict_data=zstandard.ZstdCompressionDict(b"x" * 500, dict_type=zstandard.DICT_TYPE_RAWCONTENT),
            ),
            1000,
        ),
    ),
    Case("zstd: a dictionary by its id", _record(b"\x28\xb5\x2f\xfd\x23\xff\xff\xff\x7f\x05\x29\0\0hello", 5)),
    Case("zstd: a window of 2 GiB", _record(b"\x28\xb5\x2f\xfd\x00\xa8\x29\0\0hello", 5)),
    Case("zstd: garbage", _record(b"no frame at all", 1000)),
    Case("zstd: cut", _record(_frame(bytes(range(256)) * 40)[:-9], 10240)),
    Case("a codec of tomorrow", _record(b"x" * 9, 9, codec=9), codes=frozenset(["E101", "E102", "E904"])),
    Case("raw, under another size", _record(b"x" * 9, 10, codec=Codec.RAW)),
    Case(
        "a size of 2^62 in the index",
        _record(b"x" * 9, 9, codec=Codec.RAW, row=1 << 62),
        codes=frozenset(["E101", "E102", "E902"]),
    ),
    Case("a size below zero in the index", _record(b"x" * 9, 9, codec=Codec.RAW, row=-5)),
    Case("header: no map", _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb([1, 2, 3]), b"evil"), 4)),
    Case(
        "header: a bomb of nils",
        _stored(Kind.BLOB, lambda i: whole(1, b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 4000, b"e"), 1),
    ),
    Case("header: nested", _stored(Kind.BLOB, lambda i: whole(1, b"\x91" * 4000 + b"\xc0", b"evil"), 4)),
    Case("header: an id of text", _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: "x", 2: 4}), b"evil"), 4)),
    Case("header: a size of text", _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: "4"}), b"evil"), 4)),
    Case("header: a size below zero", _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: -4}), b"evil"), 4)),
    Case(
        "header: a size of 2^63", _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: 1 << 63}), b"evil"), 4)
    ),
    Case("header: another id", _stored(Kind.BLOB, lambda i: record(1, b"\xee" * 32, b"evil"), 4)),
    Case("header: an id of no bytes", _stored(Kind.BLOB, lambda i: record(1, b"", b"evil"), 4)),
    Case("header: ext", _stored(Kind.BLOB, lambda i: whole(1, b"\x82\x01\xc7\x05\x01aaaaa\x02\x04", b"evil"), 4)),
    Case(
        "header: a timestamp",
        _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: msgpack.Timestamp(2**33, 1)}), b"evil"), 4),
    ),
    Case("header: unhashable keys", _stored(Kind.BLOB, lambda i: whole(1, b"\x81\x90\x01", b"evil"), 4)),
    Case("header: not UTF-8", _stored(Kind.BLOB, lambda i: whole(1, b"\x81\xa2\xff\xfe\x01", b"evil"), 4)),
    Case(
        "a payload of 2 GiB that is not there",
        _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: 4}), b"evil", payload_len=(1 << 31) - 20), 4),
    ),
    Case(
        "a payload past 2 GiB",
        _stored(Kind.BLOB, lambda i: whole(1, msgpack.packb({1: i, 2: 4}), b"evil", payload_len=1 << 62), 4),
    ),
    Case("an unknown kind of record", _stored(77, lambda i: record(77, i, b"evil"), 4)),
    Case("a kind past a byte", _stored(1 << 40, lambda i: record(1, i, b"evil"), 4)),
    Case(
        "chunks: one, 10^6 times",
        _chunked(lambda it: [(_chunk(it, b"z" * 20000), 20000)] * 10**6, 20000 * 10**6),
        codes=frozenset(["E101", "E102", "E309"]),
    ),
    Case("chunks: 3*10^6 of nothing", _chunked(lambda it: [(_chunk(it, b""), 0)] * (3 * 10**6), 100)),
    Case("chunks: a list of itself", _chunked(lambda it: [(LIST, 100)], 100)),
    Case("chunks: a blob for a chunk", _chunked(lambda it: [(it.blob(b"a"), 1)], 1)),
    Case("chunks: one that is not there", _chunked(lambda it: [(b"\xab" * 32, 1)], 1)),
    Case("chunks: sizes that lie", _chunked(lambda it: [(_chunk(it, b"abc"), 4)], 4)),
    Case("chunks: sums that lie", _chunked(lambda it: [(_chunk(it, b"abc"), 3)], 4)),
    Case("chunks: negative sizes", _chunked(lambda it: [(_chunk(it, b"abc"), 3), (_chunk(it, b"abc"), -3)], 0)),
    Case("chunks: no list", _chunked(lambda it: 7, 7)),
    Case("chunks: no pairs", _chunked(lambda it: [1, 2, 3], 6)),
    Case("chunks: text for ids", _chunked(lambda it: [("abc", 3)], 3)),
    Case("chunks: numbers for ids", _chunked(lambda it: [(2**33, 3)], 3)),
    Case("chunks: floats for sizes", _chunked(lambda it: [(_chunk(it, b"abc"), 3.5)], 3)),
    Case("chunks: nested", _chunked(lambda it: _nested(500), 3)),
    Case("chunks: nothing", _chunked(lambda it: [], 0)),
]


def _long(it: Forge, levels: int) -> bytes:
    oid = it.files(a=b"a\n")
    for _ in range(levels):
        oid = it.tree((b"40000", b"d" * 200, oid))
    return oid


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


# ---------------------------------------------------------------- records that need another

TEXT = b"".join(b"line %d of a text that versions share\n" % number for number in range(60))
ONE, TWO = b"\x31" * 32, b"\x32" * 32


def _based(build: Callable[[Forge], bytes]) -> Callable[[Forge], object]:
    """A tree whose one file is the record that is built."""
    return lambda it: it.version(it.tree((b"100644", b"logic.py", build(it))))


def _after(base: Callable[[Forge], bytes], ordinal: object, prefix: bytes = TEXT) -> Callable[[Forge], object]:
    """A file whose record says that it has a base and an ordinal."""
    data = TEXT + b"more\n"
    return _based(lambda it: it.after(base(it), ordinal, SHA256.hash(Kind.BLOB, data), data, prefix))


def _ring(length: int, ordinals: Callable[[int], int]) -> Callable[[Forge], object]:
    """So many records, each of which has the next one as base, and the last the first."""

    def build(it: Forge) -> bytes:
        ids = [struct.pack(">I", number) * 8 for number in range(length)]
        for number, id_ in enumerate(ids):
            it.after(ids[(number + 1) % length], ordinals(number), id_, TEXT + b"x", TEXT)
        return ids[0]

    return _based(build)


def _chain(length: int, ordinals: Callable[[int], int]) -> Callable[[Forge], object]:
    """So many records one on top of the other, all as they must be but for their number."""

    def build(it: Forge) -> bytes:
        data = TEXT
        oid: bytes = it.blob(data)
        for number in range(1, length + 1):
            more = TEXT + b"%d\n" % number
            oid, data = it.after(oid, ordinals(number), SHA256.hash(Kind.BLOB, more), more, data), more
        return oid

    return _based(build)


def _with_base_of(kind: int, data: bytes, stored: bytes | None = None) -> Callable[[Forge], object]:
    """A file whose base is a record of some kind and content."""

    def build(it: Forge) -> bytes:
        it.raw(ONE, kind, stored or record(kind, ONE, data), len(data))
        more = TEXT + b"more"
        return it.after(ONE, 1, SHA256.hash(Kind.BLOB, more), more, data or TEXT)

    return _based(build)


def _index_says(base: bytes | None) -> Callable[[Forge], object]:
    """A file whose row says another base than its record."""

    def build(it: Forge) -> bytes:
        data = TEXT + b"more"
        oid = it.after(it.blob(TEXT), 1, SHA256.hash(Kind.BLOB, data), data, TEXT)
        it.records[-1] = (*it.records[-1][:4], base)
        return oid

    return _based(build)


def _frame_after(change: Callable[[bytes], bytes], size: int = len(TEXT) + 1) -> Callable[[Forge], object]:
    """A file with a good base, and a frame that is not what it must be."""

    def build(it: Forge) -> bytes:
        base = it.blob(TEXT)
        header = msgpack.packb({1: TWO, 2: size, 3: base, 4: 1})
        stored = whole(Kind.BLOB, header, change(compress_after(TEXT, TEXT + b"x")), Codec.ZSTD_PREFIX)
        return it.raw(TWO, Kind.BLOB, stored, size, base)

    return _based(build)


BASES = [
    Case("text: a file", _record(compress_text(TEXT, 1), len(TEXT), Codec.ZSTD_TEXT)),
    Case("text: a frame that needs none", _record(_frame(b"x" * 1000), 999, Codec.ZSTD_TEXT)),
    Case("text: a bomb of 1 GiB", _record(_bomb(1 << 30), 1000, Codec.ZSTD_TEXT)),
    Case("text: garbage", _record(b"no frame at all", 1000, Codec.ZSTD_TEXT)),
    Case("base: not there", _after(lambda _: NOTHING, 1)),
    Case("base: no id", _after(lambda _: b"", 1)),
    Case("base: other bytes", _after(lambda it: it.blob(b"something else entirely\n" * 100), 1)),
    Case("base: its own", _ring(1, lambda _: 1)),
    Case("base: each other's", _ring(2, lambda number: 1 + number)),
    Case("base: a ring of 5,000", _ring(5_000, lambda number: 63 - number % 63)),
    Case("base: 20,000 deep, all of one ordinal", _chain(20_000, lambda _: 63)),
    Case("base: 20,000 deep, counting", _chain(20_000, lambda number: 1 + number % 63)),
    Case("base: seven deep", _chain(7, lambda number: (1 << min(number, 6)) - 1)),
    Case("base: six deep", _chain(6, lambda number: (1 << number) - 1), HARMLESS),
    Case("ordinal: of a whole record", _after(lambda it: it.blob(TEXT), 0)),
    Case("ordinal: below zero", _after(lambda it: it.blob(TEXT), -1)),
    Case("ordinal: 64", _after(lambda it: it.blob(TEXT), 64)),
    Case("ordinal: 2^63", _after(lambda it: it.blob(TEXT), 1 << 63)),
    Case("ordinal: true", _after(lambda it: it.blob(TEXT), True)),
    Case("ordinal: text", _after(lambda it: it.blob(TEXT), "1")),
    Case("ordinal: nothing", _after(lambda it: it.blob(TEXT), None)),
    Case("base: a list of chunks", _with_base_of(RecordKind.CHUNK_LIST, msgpack.packb([(ONE, 3)]))),
    Case("base: an op", _with_base_of(RecordKind.OP, TEXT)),
    Case("base: empty", _with_base_of(Kind.BLOB, b"")),
    Case("base: 16 MiB", _with_base_of(Kind.BLOB, bytes(16 << 20))),
    Case(
        "base: a bomb of 16 MiB",
        _with_base_of(Kind.BLOB, bytes(16 << 20), record(1, ONE, _bomb(16 << 20), 16 << 20, codec=1)),
    ),
    Case("base: a bomb of 1 GiB", _with_base_of(Kind.BLOB, TEXT, record(1, ONE, _bomb(1 << 30), 1 << 30, codec=1))),
    Case("base: the index says none", _index_says(None)),
    Case("base: the index says another", _index_says(NOTHING)),
    Case("after a base: cut", _frame_after(lambda it: it[:-3])),
    Case("after a base: trailing bytes", _frame_after(lambda it: it + b"tail")),
    Case("after a base: a skippable frame", _frame_after(lambda it: SKIPPABLE + it)),
    Case("after a base: garbage", _frame_after(lambda _: b"no frame at all")),
    Case("after a base: another checksum", _frame_after(lambda it: it[:-4] + b"evil")),
    Case("after a base: another size", _frame_after(lambda it: it, 5000)),
    Case("after a base: a bomb of 1 GiB", _frame_after(lambda _: _bomb(1 << 30), 1 << 24)),
    Case("after a base: a window of 2 GiB", _frame_after(lambda _: b"\x28\xb5\x2f\xfd\x00\xa8\x29\0\0hello")),
]


# ---------------------------------------------------------------- records that several share

SMALLS = [b"one\n" * 9, b"two\n" * 9, b"three\n" * 9]
IDS = [SHA256.hash(Kind.BLOB, data) for data in SMALLS]
ROWS: list[tuple[bytes, int, int, int]] = [(IDS[0], 1, 36, 0), (IDS[1], 1, 36, 36), (IDS[2], 1, 54, 72)]
MEMBERS: list[object] = [[1, IDS[0], 36], [1, IDS[1], 36], [1, IDS[2], 54]]


def _block(
    members: object = MEMBERS,
    rows: list[tuple[bytes, int, int, int]] = ROWS,
    *,
    data: bytes = b"".join(SMALLS),
    payload: bytes | None = None,
    codec: int = Codec.RAW,
    size: int | None = None,
) -> Callable[[Forge], object]:
    """Three files that share a record, or what says that it is one."""

    def build(it: Forge) -> object:
        header = {1: b"", 2: len(data) if size is None else size, 5: members}
        it.block(whole(RecordKind.BLOCK, msgpack.packb(header), data if payload is None else payload, codec), *rows)
        return it.version(it.tree(*((b"100644", b"%d.txt" % number, id_) for number, id_ in enumerate(IDS))))

    return build


def _member(number: int, row: tuple[bytes, int, int, int]) -> list[tuple[bytes, int, int, int]]:
    return [row if at == number else it for at, it in enumerate(ROWS)]


BLOCKS = [
    Case("block: as it must be", _block(), HARMLESS),
    Case("block: compressed", _block(payload=_frame(b"".join(SMALLS)), codec=Codec.ZSTD), HARMLESS),
    Case("block: no members", _block([])),
    Case("block: members of text", _block("evil")),
    Case("block: members of nothing", _block(None)),
    Case("block: members nested", _block([[[1, IDS[0], 36]]])),
    Case("block: a member too short", _block([[1, IDS[0]], *MEMBERS[1:]])),
    Case("block: sizes that lie", _block([[1, IDS[0], 35], *MEMBERS[1:]])),
    Case("block: sizes that overlap", _block([[1, IDS[0], 90], [1, IDS[1], -18], [1, IDS[2], 54]])),
    Case("block: sizes of 2^62", _block([[1, IDS[0], 1 << 62], *MEMBERS[1:]])),
    Case("block: sizes that are true", _block([[1, IDS[0], True], *MEMBERS[1:]])),
    Case("block: a list of chunks inside", _block([[6, IDS[0], 36], *MEMBERS[1:]])),
    Case("block: a block inside", _block([[9, IDS[0], 36], *MEMBERS[1:]])),
    Case("block: an op inside", _block([[7, IDS[0], 36], *MEMBERS[1:]])),
    Case("block: other bytes", _block(data=b"x" * 126)),
    Case("block: 65 members", _block([*MEMBERS, *([[1, NOTHING, 0]] * 62)])),
    Case("block: 10^6 members", _block([[1, b"i", 0]] * 1200)),
    Case("block: ids of no bytes", _block([[1, b"", 36], *MEMBERS[1:]])),
    Case("block: 1 MiB", _block([[1, IDS[0], (1 << 20) - 90], *MEMBERS[1:]], data=bytes(1 << 20))),
    Case("block: a bomb of 1 GiB", _block(payload=_bomb(1 << 30), codec=Codec.ZSTD)),
    Case("block: a bomb that states its size", _block(payload=_bomb(1 << 30), codec=Codec.ZSTD, size=1 << 30)),
    Case("block: with a base", _block(codec=Codec.ZSTD_PREFIX)),
    Case("block: the index says another place", _block(rows=_member(1, (IDS[1], 1, 36, 35)))),
    Case("block: the index says a place past the end", _block(rows=_member(1, (IDS[1], 1, 36, 1 << 40)))),
    Case("block: the index says another size", _block(rows=_member(1, (IDS[1], 1, 37, 36)))),
    Case("block: the index says another kind", _block(rows=_member(1, (IDS[1], 2, 36, 36)))),
    Case("block: the index says none", _block(rows=_member(1, (IDS[1], 1, 36, -1)))),
    Case("block: the index says below none", _block(rows=_member(1, (IDS[1], 1, 36, -7)))),
    Case(
        "block: the index says one, and it is none",
        lambda it: (
            it.block(record(1, IDS[0], SMALLS[0]), (IDS[0], 1, 36, 0)),
            it.version(it.tree((b"100644", b"a", IDS[0]))),
        ),
    ),
]


# ---------------------------------------------------------------- commits and tags


def _commit(text: str | bytes) -> Callable[[Forge], object]:
    """Version 6.6.6 is this commit; {tree}, {parent} and {message} are filled in."""

    def build(it: Forge) -> object:
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        values = {
            b"{tree}": it.files(logic__py=b"evil\n").hex().encode(),
            b"{parent}": (it.repo.current or b"").hex().encode(),
            b"{message}": it.message().encode(),
        }
        for key, value in values.items():
            data = data.replace(key, value)
        return it.tagged(data)

    return build


def _with(author: str = "", message: str = "{message}", head: str = "tree {tree}") -> Callable[[Forge], object]:
    who = author or f"{EVE} {TIME} +0000"
    return _commit(f"{head}\nauthor {who}\ncommitter {who}\n\n{message}")


def _tag(text: str) -> Callable[[Forge], object]:
    def build(it: Forge) -> object:
        commit = Commit(it.files(logic__py=b"evil\n"), None, EVE, TIME, it.message())
        oid = it.put(Kind.COMMIT, encode_commit(commit))
        return it.tag_of(text.replace("{commit}", oid.hex()).encode("utf-8", "surrogatepass"))

    return build


TAIL = f"Kai-Format: 1\nKai-Version: 6.6.6\nKai-Snapshot-Type: manual\nKai-State-Checksum: sha256:{'0' * 64}\n"
GOOD_TAG = f"object {{commit}}\ntype commit\ntag {AGENT}/v6.6.6\ntagger {EVE} {TIME} +0000\n\nevil\n"


def _parents(count: int) -> Callable[[Forge], object]:
    def build(it: Forge) -> object:
        tree, oid, message = it.files(logic__py=b"evil\n"), None, it.message(None, kind="auto")
        for number in range(count):
            oid = it.put(Kind.COMMIT, encode_commit(Commit(tree, oid, EVE, TIME + number, message)))
        return it.version(tree, parent=oid)

    return build


def _parent_of_itself(it: Forge) -> object:
    id_, tree = b"\x1a" * 32, it.files(logic__py=b"evil\n")
    it.put(Kind.COMMIT, encode_commit(Commit(tree, id_, EVE, TIME, it.message())), id_)  # type: ignore[arg-type]
    return it.tag_of(GOOD_TAG.replace("{commit}", id_.hex()).encode())


def _parents_in_a_ring(it: Forge) -> object:
    ids = [bytes([0x20 + number]) * 32 for number in range(5)]
    tree = it.files(logic__py=b"evil\n")
    for number, id_ in enumerate(ids):
        parent = ids[(number + 1) % 5]
        it.put(Kind.COMMIT, encode_commit(Commit(tree, parent, EVE, TIME, it.message())), id_)  # type: ignore[arg-type]
    return it.tag_of(GOOD_TAG.replace("{commit}", ids[0].hex()).encode())


def _noted(notes: str) -> Callable[[Forge], object]:
    return lambda it: it.version(it.files(logic__py=b"e\n"), notes=notes)


def _by(who: str) -> Callable[[Forge], object]:
    return lambda it: it.version(it.files(logic__py=b"e\n"), who=who)


def _tag_of_a_tag(it: Forge) -> object:
    commit = it.put(Kind.COMMIT, encode_commit(Commit(it.files(logic__py=b"e\n"), None, EVE, TIME, it.message())))
    inner = it.put(Kind.TAG, GOOD_TAG.replace("{commit}", commit.hex()).encode())
    return it.tag_of(GOOD_TAG.replace("{commit}", inner.hex()).encode())


def _tag_of_itself(it: Forge) -> object:
    id_ = b"\x2a" * 32
    it.put(Kind.TAG, GOOD_TAG.replace("{commit}", id_.hex()).encode(), id_)
    it.ref(f"refs/tags/{AGENT}/v6.6.6", id_)
    return id_


NOTES = "\x1b[2J\x1b]0;owned\x07\r\x08 \u202eevil\u2066 \u009b31m \x00"
WRITTEN = {
    "ESC": "\x1b[31mred\x1b]8;;http://evil\x07link",
    "C1": "\u009b2J\u0090q",
    "bidi": "\u202etxt.exe\u2069\u2066\u200f",
    "CR and backspace": "done\r\x08\x08evil",
    "zero width": "a\u200bb\ufeff\u2028\u2029",
}

COMMITS = [
    Case("commit: empty", _commit("")),
    Case("commit: no headers", _commit("\n\n{message}")),
    Case("commit: NULs", _commit(b"\0" * 200)),
    Case("commit: 2 MiB", _with(message="n" * (2 << 20) + "\n\n{message}")),
    Case("commit: 1 MiB of headers", _commit("x\n" * (1 << 19) + "\n{message}")),
    Case("commit: two parents", _with(head="tree {tree}\nparent {parent}\nparent {parent}")),
    Case("commit: two trees", _with(head="tree {tree}\ntree {tree}")),
    Case("commit: a parent that is no id", _with(head="tree {tree}\nparent xyz")),
    Case("commit: a tree of spaces in its id", _with(head="tree {tree} ")),
    Case("commit: an id in upper case", _with(head="tree " + "AB" * 32)),
    Case("commit: an id with blanks", _with(head="tree " + "ab " * 32)),
    Case("commit: short ids", _with(head="tree abcd")),
    Case("commit: gpgsig", _with(head="tree {tree}\ngpgsig x")),
    Case(
        "commit: an encoding",
        _commit(f"tree {{tree}}\nauthor {EVE} 1 +0000\ncommitter {EVE} 1 +0000\nencoding x\n\n{{message}}"),
    ),
    Case(
        "commit: not UTF-8",
        _commit(b"tree {tree}\nauthor \xff <e@e> 1 +0000\ncommitter \xff <e@e> 1 +0000\n\n{message}"),
    ),
    Case("commit: half a pair", _with(message="\ud800\n\n{message}")),
    Case("commit: the year 33658", _with(f"{EVE} 999999999999 +0000")),
    Case("commit: 10^30 seconds", _with(f"{EVE} {10**30} +0000")),
    Case("commit: before 1970", _with(f"{EVE} -1 +0000")),
    Case("commit: time with zeros", _with(f"{EVE} 0001790000500 +0000")),
    Case("commit: other digits", _with(f"{EVE} \u0661\u0662\u0663 +0000")),
    Case("commit: another zone", _with(f"{EVE} {TIME} +0130")),
    Case("commit: no author", _commit("tree {tree}\n\n{message}")),
    Case("commit: no mail", _with(f"Eve {TIME} +0000")),
    Case(
        "commit: another committer",
        _commit(f"tree {{tree}}\nauthor {EVE} 1 +0000\ncommitter {EVE} 2 +0000\n\n{{message}}"),
    ),
    Case("commit: no trailers", _with(message="just notes\n")),
    Case("commit: no message", _with(message="")),
    Case("commit: trailers twice", _with(message="n\n\n" + TAIL + TAIL)),
    Case("commit: trailers in disorder", _with(message="n\n\nKai-Version: 6.6.6\nKai-Format: 1\n")),
    Case(
        "commit: a type that is none", _with(message=f"n\n\n{TAIL.replace('manual', 'evil')}Kai-Config-Checksum: x\n")
    ),
    Case("commit: checksums that are none", _with(message=f"n\n\n{TAIL}Kai-Config-Checksum: \x1b[31m\n"), STRANGE),
    Case(
        "commit: a format of tomorrow",
        _with(message=f"n\n\n{TAIL.replace(': 1', ': 99', 1)}Kai-Config-Checksum: x\n"),
        STRANGE,
    ),
    Case(
        "commit: another number than its tag",
        _with(message=f"n\n\n{TAIL.replace('6.6.6', '7.7.7')}Kai-Config-Checksum: x\n"),
    ),
    Case(
        "commit: a number of 900,000 digits",
        _with(message=f"n\n\n{TAIL.replace('6.6.6', '6' * 900_000)}Kai-Config-Checksum: x\n"),
    ),
    Case(
        "commit: a number that is none",
        _with(message=f"n\n\n{TAIL.replace('6.6.6', '../../x')}Kai-Config-Checksum: x\n"),
    ),
    Case(
        "commit: a parent's number of none",
        _with(
            message=f"n\n\n{TAIL.replace('Kai-Snap', 'Kai-Parent-Version: ../..' + chr(10) + 'Kai-Snap')}Kai-Config-Checksum: x\n"
        ),
    ),
    *(Case(f"notes: {label}", _noted(text), STRANGE) for label, text in WRITTEN.items()),
    *(
        Case(
            f"author: {label}",
            _by(f"{text} <e@e>"),
            STRANGE,
        )
        for label, text in WRITTEN.items()
    ),
    Case("notes: all of it", lambda it: it.version(it.files(logic__py=b"e\n"), notes=NOTES), STRANGE),
    Case("notes: 500 KiB on one line", lambda it: it.version(it.files(logic__py=b"e\n"), notes="n" * 500_000), STRANGE),
    Case("parents: a commit of itself", _parent_of_itself),
    Case("parents: a ring of five", _parents_in_a_ring),
    Case("parents: not there", lambda it: it.version(it.files(a=b"a"), parent=NOTHING), STRANGE),
    Case("parents: a tree", lambda it: it.version(it.files(a=b"a"), parent=it.files(b=b"b")), STRANGE),
    Case("tag: empty", _tag("")),
    Case("tag: of a tag", _tag_of_a_tag),
    Case("tag: of itself", _tag_of_itself),
    Case("tag: of a tree", _tag(GOOD_TAG.replace("type commit", "type tree"))),
    Case(
        "tag: of a blob that says commit",
        lambda it: it.tag_of(GOOD_TAG.replace("{commit}", it.blob(b"x").hex()).encode()),
    ),
    Case("tag: of nothing", lambda it: it.tag_of(GOOD_TAG.replace("{commit}", "0" * 64).encode())),
    Case("tag: another name", _tag(GOOD_TAG.replace("v6.6.6", "v1.0.0"))),
    Case("tag: a name with escapes", _tag(GOOD_TAG.replace("v6.6.6", "v6\x1b[2J"))),
    Case("tag: a name of 900,000 bytes", _tag(GOOD_TAG.replace("v6.6.6", "v" * 900_000))),
    Case("tag: the year 33658", _tag(GOOD_TAG.replace(str(TIME), "999999999999"))),
    Case("tag: no tagger", _tag("object {commit}\ntype commit\ntag x\n\nevil\n")),
    Case("tag: headers twice", _tag("object {commit}\n" + GOOD_TAG)),
    Case("tag: not UTF-8", _tag("\udcff" + GOOD_TAG)),
    Case("tag: half a pair", _tag(GOOD_TAG + "\ud800")),
    Case("ref: to nothing", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", NOTHING)),
    Case("ref: to a blob", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", it.blob(b"x"))),
    Case("ref: to a tree", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", it.files(a=b"a"))),
    Case("ref: a tag that is a commit", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", it.repo.current)),
    Case("ref: to 20 bytes", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", NOTHING[:20])),
    Case("ref: to no bytes", lambda it: it.ref(f"refs/tags/{AGENT}/v6.6.6", b"")),
    Case("ref: of no version", lambda it: it.ref(f"refs/tags/{AGENT}/../../x", it.blob(b"x")), STRANGE),
    Case("ref: with escapes", lambda it: it.ref(f"refs/tags/{AGENT}/\x1b[2J", it.blob(b"x")), STRANGE),
    Case(
        "ref: a branch with escapes",
        lambda it: it.ref(f"refs/heads/{AGENT}/backups/\x1b[2J\u202e", it.blob(b"x")),
        STRANGE,
    ),
    Case("ref: of another agent", lambda it: it.ref("refs/heads/other/current", it.blob(b"x")), STRANGE),
    Case("ref: current is a blob", lambda it: it.in_force(it.blob(b"x")), STRANGE),
    Case("ref: current is nothing", lambda it: it.in_force(NOTHING), STRANGE),
]

PARENTS = [Case("parents: 20,000 deep", _parents(20_000), STRANGE)]

TABLE = [*TREES, *LINKS, *BOMBS, *BASES, *BLOCKS, *COMMITS]
