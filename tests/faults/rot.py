"""Damage at rest: a home in memory, one flipped bit or cut length at a time, and what every read answers then.

A case is applied in place and taken back; the home is opened anew for each. ``Patient`` knows the right answers, and
for each region of each file which reads notice when the whole region is garbage: of those each case runs some, and of
all the others one in turn.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import mmap
import os
import random
import resource
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kaivc.api import Home
from kaivc.errors import KaiError
from kaivc.findings import Finding
from kaivc.names import ObjectId
from kaivc.ops.fsck import Fscked
from kaivc.storage import index, packscan
from kaivc.storage.pack import MAGIC, RecordKind
from kaivc.storage.packscan import Gap
from tests.engine.damage import fsck
from tests.faults.rot_home import WAL, open_quietly
from tests.faults.rot_reads import ABSENT, MISSING, OLDER, RIGHT, SAID, WRONG, Failed, Read, judge, reads

SMALL = 4096
"""Bytes of a file of which every bit is flipped, and every length cut."""
HANG = 20.0
"""Seconds after which a case counts as one that does not end; a loaded machine is slow."""
EXTRA = 256 << 20
"""Bytes of memory that reads of a damaged home may take beyond those of whole ones."""
PAGE = 4096
WAL_HEAD, FRAME_HEAD = 32, 24
UNTYPED = {"E901", "E999"}
CONTENT = (RecordKind.BLOB, RecordKind.CHUNK, RecordKind.CHUNK_LIST, RecordKind.BLOCK)
"""What a view has a copy of."""


# ---------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A bit to be flipped, or a length to be cut to (``bit`` of -1); of an empty file, a byte to be put there."""

    path: str
    at: int
    bit: int = -1

    def __str__(self) -> str:
        return f"{self.path} cut to {self.at}" if self.bit < 0 else f"{self.path} byte {self.at} bit {self.bit}"


@dataclass(frozen=True)
class Region:
    """Bytes of a file that belong together; ``kind`` and ``oids`` are those of a pack's record, of all in a block.

    What lies behind the committed end of a pack is not ``named`` by anything.
    """

    start: int
    end: int
    kind: int = 0
    oids: tuple[bytes, ...] = ()
    named: bool = True


@dataclass
class Tally:
    """What came of many cases."""

    cases: int = 0
    flips: int = 0
    cuts: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    fscks: int = 0
    slowest: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take another's counts."""
        self.cases += other.cases
        self.flips += other.flips
        self.cuts += other.cuts
        self.answers += other.answers
        self.codes += other.codes
        self.fscks += other.fscks
        self.slowest = max(self.slowest, other.slowest)
        self.seconds += other.seconds
        self.failures += other.failures
        self.absent += other.absent

    def line(self) -> str:
        """All of it in words."""
        each = self.seconds / max(1, self.cases) * 1000
        answers = ", ".join(f"{count} {what}" for what, count in sorted(self.answers.items()))
        codes = ", ".join(f"{code} {count}" for code, count in self.codes.most_common())
        return (
            f"{self.flips} flips, {self.cuts} cuts; answers: {answers}; errors: {codes}; {self.fscks} times fsck; "
            f"{each:.1f} ms each, {self.slowest * 1000:.0f} ms at most"
        )


class Patient:
    """A home, the right answers, and what is known of its files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kai = path / ".kai"
        self.whole: dict[str, tuple[bytes, int]] = {}
        for each in sorted(self.kai.rglob("*")):
            if each.is_file() and each.name != "config.yaml":
                self.whole[each.relative_to(self.kai).as_posix()] = (each.read_bytes(), each.stat().st_mode & 0o7777)
        self._remembered: dict[str, tuple[int, ...]] = {}
        self.restore()
        with closing(self.open()) as home:
            pending = any(home.agent(name).status().pending for name in home.agents())
            # Where there are intents, a load would carry them out, and they reach beyond .kai.
            self.reads = [it for it in reads(home, path.parent) if not pending or "load" not in it.name]
        self.restore()
        self.truths = {it.name: [self.ask(it)] for it in self.reads}
        self.restore()
        for it in self.reads:
            assert self.ask(it) == self.truths[it.name][0], f"{it.name} does not answer twice the same"
        self.restore()
        self._older()
        self._committed: dict[str, int] = {}
        self.holders = self._holders()
        self.regions = {name: self._regions(name) for name in self.whole}
        self.touched: dict[tuple[str, int], list[Read]] = {}
        self._turn = itertools.cycle(self.reads)

    def open(self, *, read_only: bool = False) -> Home:
        """The home, opened anew."""
        return open_quietly(self.path, read_only=read_only)

    def ask(self, it: Read, home: Home | None = None) -> Any:
        """One answer, or the typed error; anything else passes through."""
        try:
            if home is None:
                with closing(self.open()) as opened:
                    return it.ask(opened)
            return it.ask(home)
        except KaiError as error:
            return Failed(error.code, error.what)

    def _older(self) -> None:
        """What was right before each transaction that is only in the log: a log that is cut reads so."""
        if WAL not in self.whole:
            return
        data = self.whole[WAL][0]
        frames = range(WAL_HEAD, len(data), FRAME_HEAD + PAGE)
        commits = [at for at in frames if struct.unpack_from(">I", data, at + 4)[0]]
        ends = [WAL_HEAD, *(at + FRAME_HEAD + PAGE for at in commits)]
        for end in ends[-2::-1]:
            os.truncate(self.kai / WAL, end)
            for it in self.reads:
                answer = self.ask(it)
                if answer not in self.truths[it.name]:
                    self.truths[it.name].append(answer)
            self.restore()

    def _holders(self) -> dict[tuple[str, bytes], set[tuple[str, str | None]]]:
        """The (version, path) that each object belongs to, by agent and id."""
        found: dict[tuple[str, bytes], set[tuple[str, str | None]]] = {}
        with closing(open_quietly(self.path, read_only=True)) as home:
            for name in home.agents():
                agent = home.agent(name)
                store = agent.repository.store
                for pack in index.packs(store.catalog, store.place.agent_id):
                    self._committed[f"packs/{name}/{pack.name}.pack"] = pack.committed
                for ref, oid in agent.repository.refs("refs/tags/").items():
                    tag = ref.rpartition("/")[2]
                    tree = agent.ls_tree(tag, recursive=True, show_trees=True)
                    plain = {oid, bytes.fromhex(tree.commit), bytes.fromhex(tree.tree)}
                    for each in plain:
                        found.setdefault((name, each), set()).add((tag, None))
                    for entry in tree.entries:
                        ids = [bytes.fromhex(entry.oid)]
                        row = store.require(ObjectId(ids[0]))
                        if row.kind == RecordKind.CHUNK_LIST:
                            ids += [chunk for chunk, _ in store.chunk_list(row)]
                        for each in ids:
                            found.setdefault((name, each), set()).add((tag, entry.path))
        self.restore()
        return found

    def _regions(self, name: str) -> list[Region]:
        data, _ = self.whole[name]
        size = len(data)
        if name.endswith(".pack"):
            return list(_records(self.kai / name, self._committed[name]))
        if name == WAL:
            starts = [0, *range(WAL_HEAD, size, FRAME_HEAD + PAGE)]
        elif size > SMALL:
            starts = list(range(0, size, PAGE))
        else:
            starts = [0]
        return [Region(start, end) for start, end in itertools.pairwise([*starts, max(size, 1)])]

    def region(self, case: Case) -> Region:
        """Where a case hits."""
        return next((it for it in self.regions[case.path] if it.start <= case.at < it.end), self.regions[case.path][-1])

    # ------------------------------------------------------------ damage

    def apply(self, case: Case) -> None:
        """Damage the home in place."""
        if case.bit < 0:
            os.truncate(self.kai / case.path, case.at)
            return
        data = self.whole[case.path][0]
        old = data[case.at] if data else 0
        self._write(case.path, case.at, bytes([old ^ (1 << case.bit)]))

    def garble(self, name: str, region: Region) -> None:
        """Turn every bit of a region."""
        data = self.whole[name][0][region.start : region.end]
        self._write(name, region.start, bytes(byte ^ 0xFF for byte in data) or b"\xff")

    def _write(self, name: str, at: int, data: bytes) -> None:
        fd = os.open(self.kai / name, os.O_WRONLY)
        try:
            os.pwrite(fd, data, at)
        finally:
            os.close(fd)

    def restore(self) -> None:
        """Put every file below .kai back that is not as it was."""
        there = {}
        for directory, _, names in os.walk(self.kai):
            for name in names:
                full = os.path.join(directory, name)
                status = os.stat(full)
                there[os.path.relpath(full, self.kai)] = (status.st_ino, status.st_size, status.st_mtime_ns)
        for name in there.keys() - self.whole.keys() - {"config.yaml"}:
            os.unlink(self.kai / name)
        for name, (data, mode) in self.whole.items():
            if there.get(name) == self._remembered.get(name, ()):
                continue
            fd = os.open(self.kai / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            os.pwrite(fd, data, 0)
            status = os.fstat(fd)
            os.close(fd)
            self._remembered[name] = (status.st_ino, status.st_size, status.st_mtime_ns)

    def damaged(self, case: Case) -> contextlib.AbstractContextManager[None]:
        """The home with a case, for a while."""
        return self._while(partial(self.apply, case))

    @contextlib.contextmanager
    def _while(self, harm: Callable[[], None]) -> Iterator[None]:
        harm()
        try:
            yield
        finally:
            self.restore()

    def learn(self, names: Iterable[str]) -> None:
        """Find out which reads notice when a region is garbage; of a record it is known which versions hold it."""
        for name in names:
            for region in self.regions[name]:
                if name.endswith(".pack"):
                    self.touched[name, region.start] = self._holding(name.split("/")[1], region)
                    continue
                noticed = []
                with self._while(partial(self.garble, name, region)):
                    for it in self.reads:
                        try:
                            if self.ask(it) != self.truths[it.name][0]:
                                noticed.append(it)
                        except Exception:
                            noticed.append(it)  # a case will say what it was
                self.touched[name, region.start] = noticed

    def _holding(self, agent: str, region: Region) -> list[Read]:
        """The reads that concern a version which holds a record, or a backup."""
        tags = {tag for tag, _ in self._held(agent, region)}
        words = {*tags, "verify", "load", "versions"} if tags else {"backup", "current"}
        mine = [it for it in self.reads if it.name.endswith(f" {agent}")]
        return [it for it in mine if words & set(it.name.split())] if region.oids else []

    def _held(self, agent: str, region: Region) -> set[tuple[str, str | None]]:
        """The versions and paths that need what lies there."""
        return {one for oid in region.oids for one in self.holders.get((agent, oid), set())}

    # ------------------------------------------------------------ one case

    def run(self, case: Case, chance: random.Random, tally: Tally, fsck_share: float) -> None:
        """Damage, ask, judge, restore."""
        region = self.region(case)
        with self.damaged(case):
            every = chance.random() < fsck_share
            noticing = self.touched.get((case.path, region.start), [])
            chosen = [*chance.sample(noticing, min(2, len(noticing))), next(self._turn)]
            verdicts = self._answers(case, self.reads if every else chosen, chance, tally)
            held_up = [it for it in verdicts if it.startswith("load") and verdicts[it] != RIGHT]
            if held_up and region.kind in CONTENT and case.bit >= 0:
                tally.failures.append(f"{case}: a view is whole, and yet {held_up} does not give it")
            missing = sorted(name for name, verdict in verdicts.items() if verdict in (MISSING, OLDER))
            if missing and (len(tally.absent) < 50 or chance.random() < 0.05):
                tally.absent.append(f"{case}: {', '.join(missing)}")
                every = True
            if every:
                self._look(case, region, verdicts, tally)

    def _answers(self, case: Case, asked: list[Read], chance: random.Random, tally: Tally) -> dict[str, str]:
        """The verdicts on the answers of one opened home."""
        verdicts: dict[str, str] = {}
        home = None
        try:
            try:
                home = self.open(read_only=chance.random() < 0.1)
            except KaiError as error:
                tally.codes[error.code] += 1
                self._typed(case, "open", error.code, error.what, tally)
                verdicts["open"] = MISSING if error.code in ABSENT else SAID
                return verdicts
            for it in dict.fromkeys(asked):
                answer = self.ask(it, home)
                verdicts[it.name] = verdict = judge(it.name, answer, self.truths[it.name])
                if isinstance(answer, Failed):
                    tally.codes[answer.code] += 1
                    self._typed(case, it.name, answer.code, answer.what, tally)
                if verdict == WRONG:
                    tally.failures.append(f"{case}: {it.name} is wrong: {_differing(answer, self.truths[it.name][0])}")
        except Exception:
            tally.failures.append(f"{case}: {traceback.format_exc(limit=-4)}")
        finally:
            if home is not None:
                try:
                    home.close()
                except KaiError as error:
                    tally.codes[error.code] += 1
                    self._typed(case, "closing", error.code, error.what, tally)
                except Exception:
                    tally.failures.append(f"{case}: closing: {traceback.format_exc(limit=-4)}")
            tally.answers.update(verdicts.values())
        return verdicts

    def _typed(self, case: Case, what: str, code: str, said: str, tally: Tally) -> None:
        """That the disk failed, or that kaivc is at fault, is no answer to damage."""
        if code in UNTYPED:
            tally.failures.append(f"{case}: {what} raises {code}: {said}")

    def _look(self, case: Case, region: Region, verdicts: dict[str, str], tally: Tally) -> None:
        """What fsck says of it: never that all is well when a read was hit, and of an object whose it is."""
        tally.fscks += 1
        try:
            found = fsck(self.path)
        except KaiError as error:
            tally.codes[f"fsck {error.code}"] += 1
            self._typed(case, "fsck", error.code, error.what, tally)
            return
        except Exception:
            tally.failures.append(f"{case}: fsck: {traceback.format_exc(limit=-4)}")
            return
        hit = {name: it for name, it in verdicts.items() if it != RIGHT}
        if hit and found.ok and not self._is_known_otherwise(case):
            tally.failures.append(f"{case}: fsck says that all is well: {hit}")
        if region.kind and region.named and found.ok:
            tally.failures.append(f"{case}: fsck sees nothing of a record of kind {region.kind}")
        if region.oids and case.bit >= 0:
            unnamed = self._unnamed(case, region, found)
            if unnamed:
                tally.failures.append(f"{case}: fsck does not name {unnamed}; it says {found.all}")

    def _is_known_otherwise(self, case: Case) -> bool:
        """local.yaml belongs to the user: what is wrong in it is said by each command that reads it."""
        return case.path == "local.yaml"

    def _unnamed(self, case: Case, region: Region, found: Fscked) -> set[tuple[str, str | None]]:
        agent = case.path.split("/")[1]
        wanted = self._held(agent, region)
        said = [it for it in found.all if it.agent == agent]
        return {one for one in wanted if not any(_names(it, *one) for it in said)}


def _names(it: Finding, tag: str, path: str | None) -> bool:
    return tag in it.versions and (path is None or it.path is None or path == it.path)


def _differing(answer: object, right: object) -> str:
    one, two = repr(answer), repr(right)
    at = next((at for at, pair in enumerate(zip(one, two, strict=False)) if pair[0] != pair[1]), 0)
    return f"... {one[max(0, at - 60) : at + 80]} ... but ... {two[max(0, at - 60) : at + 80]}"


def _records(path: Path, committed: int) -> Iterator[Region]:
    reader = packscan.open_reader(str(path))
    try:
        size = packscan.size(reader)
        yield Region(0, len(MAGIC))
        end = len(MAGIC)
        for item in packscan.survey(reader, end, size):
            if not isinstance(item, Gap):
                kind = item.header.kind
                oids: tuple[bytes, ...] = (item.header.id,)
                if kind in (RecordKind.OP, RecordKind.FOOTER, RecordKind.BLOCK):
                    oids = tuple(it.id for it in item.header.members)
                yield Region(item.header.where.offset, item.end, kind, oids, item.end <= committed)
                end = item.end
        if end < size:
            yield Region(end, size, named=False)
    finally:
        reader.close()


# ---------------------------------------------------------------- many cases


def run(patient: Patient, cases: list[Case], seed: int, fsck_share: float, scratch: Path) -> Tally:
    """Run cases in a forked child: a signal, a hang or a memory that grows ends only that."""
    told, at = scratch / "told", mmap.mmap(-1, 8)
    pid = os.fork()
    if pid == 0:
        _child(patient, cases, seed, fsck_share, told, at)
    last, since = -1, time.monotonic()
    while (done := os.waitpid(pid, os.WNOHANG))[0] == 0:
        time.sleep(0.02)
        now = struct.unpack("<q", at[:8])[0]
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > HANG:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"{cases[now]} did not end within {HANG:g} s")
    now = struct.unpack("<q", at[:8])[0]
    assert done[1] == 0, f"{cases[min(now, len(cases) - 1)]} ended the process: status {done[1]}"
    fields = json.loads(told.read_text())
    return Tally(**{**fields, "answers": Counter(fields["answers"]), "codes": Counter(fields["codes"])})


def _child(patient: Patient, cases: list[Case], seed: int, fsck_share: float, told: Path, at: mmap.mmap) -> None:
    code = 1
    try:
        chance, tally = random.Random(seed), Tally()
        gc.freeze()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (used + EXTRA, used + EXTRA))
        for number, case in enumerate(cases):
            at[:8] = struct.pack("<q", number)
            start = time.monotonic()
            patient.run(case, chance, tally, fsck_share)
            took = time.monotonic() - start
            tally.cases += 1
            tally.flips += case.bit >= 0
            tally.cuts += case.bit < 0
            tally.slowest = max(tally.slowest, took)
            tally.seconds += took
        told.write_text(json.dumps(vars(tally)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
