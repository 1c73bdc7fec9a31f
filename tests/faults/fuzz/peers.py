"""The parsers of what peers send, and of what is kept of them: each takes bytes, and returns or raises KaiError."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

from kaivc import access, bundles, dialogue, gitreceiving, incoming, pktline, remotelist, wire
from kaivc.errors import KaiError, LostRace
from kaivc.remotelist import BUNDLE
from kaivc.remotes import gitlines
from kaivc.storage import gitpack
from kaivc.storage.gitobjects import SHA1, SHA256
from kaivc.storage.pack import MAGIC
from kaivc.wire import Entry, Far, Fields, Head, Hello, Offer, Outcome

MOST = 1 << 20
BASE = b"some text\n" * 18
"""What every delta is applied to."""


class Unread(Exception):
    """A parser that does not keep its word."""


@cache
def _path() -> str:
    return os.path.join(tempfile.mkdtemp(prefix="kai-fuzz-"), "file")


def _file(data: bytes) -> str:
    with open(_path(), "wb") as file:
        file.write(data)
    return _path()


def _reader(data: bytes) -> Callable[[int], bytes]:
    """Gives exactly so many bytes, as the carriers do; a count that is none is a mistake of who asks."""
    stream = io.BytesIO(data)

    def read(count: int) -> bytes:
        if count < 0:
            raise Unread(f"{count} bytes are asked for")
        return stream.read(count)

    return read


class _Nobody:
    """A home that has nothing: what it is asked for was read by then."""

    def hello(self) -> Hello:
        return Hello("home", "sha256", ("bot",))

    def head(self, agent: str) -> Head:
        return Head(agent, 0, bytes(32), {})

    def log(self, agent: str, after: int) -> Iterator[bytes]:
        return iter((agent.encode(), b"%d" % after))

    def offer(self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...]) -> Offer:
        return Offer(agent, len(wants), len(haves))

    def get(
        self, agent: str, wants: tuple[bytes, ...], haves: tuple[bytes, ...], offer: Offer, start: int
    ) -> Iterator[bytes]:
        raise LostRace("no parcel", agent=agent, wants=wants, haves=haves, offer=offer, start=start)

    def held(self, agent: str, parcel: Offer) -> int:
        return parcel.size

    def put(self, agent: str, parcel: Offer, start: int, data: Iterable[bytes]) -> int:
        return start + sum(map(len, data))

    def append(self, agent: str, entry: Entry) -> Outcome:
        for it in entry.updates:
            if not (isinstance(it.old, bytes | None) and isinstance(it.new, bytes | None) and isinstance(it.ref, str)):
                raise Unread(f"{it!r}")
        return Outcome(1, bytes(32), None)

    def close(self) -> None: ...


def asked(data: bytes) -> None:
    """A message to a home, and what is behind it; the answer can be sent and read."""
    read = _reader(data)
    message = wire.read_message(read)
    answer, behind = dialogue.answer(cast("Far", _Nobody()), message, wire.read_data(read))
    wire.read_message(_reader(wire.pack_message(answer)))
    for _ in behind or ():
        pass


def answered(data: bytes) -> None:
    """What a home is answered, whatever it asked."""

    def exchange(message: Mapping[str, Any], _: Iterable[bytes] | None) -> tuple[Fields, Iterator[bytes]]:
        read = _reader(data)
        return wire.read_message(read), wire.read_data(read)

    far = dialogue.Client(exchange, lambda: None)
    offer = Offer("x", 1, 1)
    calls: tuple[Callable[[], object], ...] = (
        far.hello,
        lambda: far.head("bot"),
        lambda: list(far.log("bot", 0)),
        lambda: far.offer("bot", (), ()),
        lambda: list(far.get("bot", (), (), offer, 0)),
        lambda: far.held("bot", offer),
        lambda: far.put("bot", offer, 0, ()),
        lambda: far.append("bot", Entry("op", "a <a@b>", "", (), None)),
    )
    for call in calls:
        with suppress(KaiError):
            call()


def parcel(data: bytes) -> None:
    store = cast("Any", SimpleNamespace(format=SHA256))
    for records in (1, 2, 3):
        with suppress(KaiError):
            incoming.rows_of(_file(MAGIC + data), store, records)


def bundle(data: bytes) -> None:
    """A bundle, and one whose end says how long its head is."""
    length = bundles.LENGTH.pack(len(data))
    for text in (data, BUNDLE + data + length + bytes(bundles.DIGEST)):
        with suppress(KaiError), open(_file(text), "rb") as file:
            found = bundles.read("bundle", file)
            bundles.check(found, file)


def remotes(data: bytes) -> None:
    path = _file(data)
    remotelist.seen(cast("Any", SimpleNamespace(layout=SimpleNamespace(seen=lambda *_: path))), "far", "bot")
    remotelist.listed(path)


def url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if remotelist.check_url(text) != text:
        raise Unread(f"{text!r} became another URL")
    remotelist.shown(text)


def rules(data: bytes) -> None:
    """Who may what; what is read comes back from what is written of it."""
    found = access.decode(data, "access.json")
    if access.decode(access.encode(found), "access.json") != found:
        raise Unread(f"{found!r} is read otherwise when it is written")


def packets(data: bytes) -> None:
    lines = pktline.Lines(_reader(data))
    with suppress(EOFError):
        pktline.capabilities(b" ".join(lines.to_flush(100)).split())
        while lines.next() is not None:
            pass


def commands(data: bytes) -> None:
    for form in (SHA1, SHA256):
        site = cast("Any", SimpleNamespace(home=SimpleNamespace(format=form)))
        with suppress(KaiError):
            _, found = gitreceiving._commands(site, pktline.Lines(_reader(data)))
            if any(it.new is not None and len(it.new) != form.width for it in found):
                raise Unread(f"{found!r}")


def advertised(data: bytes) -> None:
    """What a git host says: refs, and behind them a pack or a report."""
    read = _reader(data)
    there = gitlines.read_advertised(gitlines.lines_over(read))
    rest = read(MOST)
    for can in ({}, there.can, {"side-band-64k": "", "report-status": ""}, {"report-status": ""}):
        said = gitlines.Advertised(there.refs, can)
        for parse in (gitlines.read_pack, gitlines.read_report):
            side = gitlines.Side(lambda *_: None)
            with suppress(KaiError):
                found = cast("Any", parse)(_reader(rest), said, side)
                if callable(found):
                    found(MOST)
            if any(not line.isprintable() for line in side.said):
                raise Unread(f"{side.said!r}")


def git_pack(data: bytes) -> None:
    for form in (SHA1, SHA256):
        with suppress(KaiError):
            stream = gitpack.PackStream(_reader(data), form, MOST)
            for _ in range(min(stream.count, 100)):
                entry = stream.entry()
                if sum(map(len, stream.contents(entry))) != entry.size:
                    raise Unread(f"{entry!r}")
            stream.finish()


def delta(data: bytes) -> None:
    found = gitpack.Delta(iter([data[:5], data[5:]]))
    if found.size <= MOST:
        made = sum(map(len, found.apply(gitpack.WholeBase(BASE[: found.base_size]))))
        if made != found.size:
            raise Unread(f"{made} bytes of {found.size}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        asked, answered, parcel, bundle, remotes, url, rules, packets, commands, advertised, git_pack, delta,
    )
}  # fmt: skip
