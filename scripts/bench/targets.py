"""The figures that kaivc is to reach, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from scripts.bench.results import Results, ratio

ARCHIVES = ("borg", "restic", "casync", "bup")
MS = 1_000.0


@dataclass(frozen=True)
class Figure:
    """One row: ``got`` is to be at least ``reach``, or at most with ``at_most``; None where it was not measured."""

    section: str
    what: str
    unit: str
    reach: float
    aim: float
    got: float | None
    at_most: bool = False
    remark: str = ""

    @property
    def outcome(self) -> str:
        """Whether it is reached, and if not by how much."""
        if self.got is None:
            return "not measured"
        if self._meets(self.aim):
            return "aim reached"
        if self._meets(self.reach):
            return "reached"
        share = self.reach / self.got if self.at_most else self.got / self.reach
        return f"**not reached** ({share:.0%} of it)"

    def _meets(self, wanted: float) -> bool:
        got = self.got or 0.0
        return got <= wanted if self.at_most else got >= wanted


def figures(results: Results) -> list[Figure]:
    """Every row of the table, in its order."""
    parts: Iterable[Callable[[Results], Iterator[Figure]]] = (
        _small,
        _large,
        _many,
        _rollback,
        _process,
        _growth,
        _memory,
    )
    return [figure for part in parts for figure in part(results)]


def _small(results: Results) -> Iterator[Figure]:
    def times(peer: str, mine: str, theirs: str = "wall") -> float | None:
        return ratio(results.value("W1", peer, "next", theirs), results.value("W1", "kai", "next", mine))

    def cpu(peer: str, mine: str) -> str:
        got = times(peer, mine, "cpu")
        return "" if got is None else f"{got:.1f}x by CPU"

    durable, returned = "durable_wall", "wall"
    what = "commit, durable, against `git add` + `git commit`"
    yield Figure("W1", what, "x", 12, 20, times("git", durable), remark=cpu("git", "durable_cpu"))
    what = "commit, durable, against pygit2 with each file synced"
    yield Figure("W1", what, "x", 4, 10, times("pygit2", durable), remark=cpu("pygit2", "durable_cpu"))
    what = "commit, returned, against `git add` + `git commit`"
    yield Figure("W1", what, "x", 6, 12, times("git", returned), remark=cpu("git", "cpu"))
    loose = results.room("W1", "git", "sizes", "store")
    packed = results.room("W1", "git", "tidy_sizes", "store")
    packs, tidied = results.room("W1", "kai", "sizes", "packs"), results.room("W1", "kai", "tidy_sizes", "packs")
    yield Figure("W1", "git's bytes before gc over our packs", "x", 10, 15, ratio(loose, packs))
    untidied = ratio(packed, packs)
    remark = "" if untidied is None else f"{untidied:.2f}x before `kai gc`"
    yield Figure("W1", "git's bytes after `git gc` over our packs", "x", 2, 4, ratio(packed, tidied), remark=remark)
    whole = results.room("W1", "kai", "tidy_sizes", "packs", "catalog")
    yield Figure("W1", "git's bytes after `git gc` over our packs and catalog", "x", 1, 1, ratio(packed, whole))
    checkout = ratio(results.value("W1", "git", "restore", "wall"), results.value("W1", "kai", "restore", "wall"))
    yield Figure("W1", "checkout of a random version, against git", "x", 10, 20, checkout)


def _large(results: Results) -> Iterator[Figure]:
    def least(values: Iterable[tuple[str, float | None]]) -> tuple[float | None, str]:
        known = [(value, name) for name, value in values if value is not None]
        best = min(known, default=(None, ""))
        return best[0], f"the best is {best[1]}" if best[1] else ""

    best, who = least((name, results.value("W2", name, "next", "cpu")) for name in ARCHIVES)
    mine = results.value("W2", "kai", "next", "durable_cpu")
    what = "next commit, durable, CPU, against the best of borg, restic, casync, bup"
    yield Figure("W2", what, "x", 3, 8, ratio(best, mine), remark=who)
    room, who = least((name, results.room("W2", name, "sizes", "store")) for name in ARCHIVES)
    mine = results.room("W2", "kai", "sizes", "packs", "catalog")
    yield Figure("W2", "our bytes over those of the best of them", "x", 0.8, 0.55, ratio(mine, room), True, who)
    borg = results.value("W2", "borg", "first", "cpu")
    returned = ratio(borg, results.value("W2", "kai", "first", "cpu"))
    remark = "" if returned is None else f"{returned:.2f}x until it returned"
    durable = ratio(borg, results.value("W2", "kai", "first", "durable_cpu"))
    yield Figure("W2", "first commit, durable, CPU, against borg with lz4", "x", 1, 1.3, durable, remark=remark)
    restore = ratio(results.value("W2", "borg", "restore", "cpu"), results.value("W2", "kai", "restore", "cpu"))
    yield Figure("W2", "restore, CPU, against borg with lz4", "x", 1, 1.5, restore)


def _many(results: Results) -> Iterator[Figure]:
    def times(step: str, mine: str = "wall") -> float | None:
        return ratio(results.value("W3", "git", step, "wall"), results.value("W3", "kai", step, mine))

    yield Figure("W3", "first commit, durable, against git", "x", 4, 8, times("first", "durable_wall"))
    yield Figure("W3", "first commit, returned, against git", "x", 2.5, 5, times("first"))
    yield Figure("W3", "checkout, against git", "x", 5, 8, times("restore"))
    yield Figure("W3", "switch between near versions, against git", "x", 3, 6, times("switch"))
    status = ratio(results.value("W3", "kai", "status", "wall"), results.value("W3", "git", "status", "wall"))
    yield Figure("W3", "status over git's", "x", 1.5, 1, status, at_most=True)


def _rollback(results: Results) -> Iterator[Figure]:
    cases = results.alone("rollback") or {}
    if not cases or "failed" in cases:
        yield Figure("rollback", "clean: until `current` moves", "ms", 5, 2, None, at_most=True)
        return
    for name, case in cases.items():
        moved = case["clean"].get("moved_wall")
        got = None if moved is None else moved * MS
        yield Figure("rollback", f"clean, {name}: until `current` moves", "ms", 5, 2, got, at_most=True)


def _process(results: Results) -> Iterator[Figure]:
    nothing = results.alone("startup", "python -c pass", "cpu")
    for command, reach in (("--version", 8), ("status", 8), ("rollback", 8), ("log", 10), ("commit", 10)):
        got = ratio(results.alone("startup", f"kai {command}", "cpu"), nothing)
        yield Figure("startup", f"`kai {command}`, CPU over `python -c pass`", "x", reach, 4, got, at_most=True)


def _growth(results: Results) -> Iterator[Figure]:
    sizes = results.alone("W5", "sizes") or []
    for step, key, what in (
        ("open", "wall", "open"),
        ("commit", "durable_wall", "commit, durable"),
        ("commit", "wall", "commit, returned"),
    ):
        got = ratio(sizes[-1][step].get(key), sizes[0][step].get(key)) if len(sizes) > 1 else None
        ends = f"{sizes[-1]['versions']:,} versions over one with {sizes[0]['versions']:,}" if len(sizes) > 1 else ""
        yield Figure(
            "W5", f"{what}: a home with {ends or '100,000 versions over one with 100'}", "x", 1.5, 1.5, got, True
        )


def _memory(results: Results) -> Iterator[Figure]:
    for case, what in (("blob", "one large file"), ("tree", "many files")):
        found = results.alone("memory", case) or {}
        peaks = [(it["peak"], name) for name, it in (found.get("commands") or {}).items() if "peak" in it]
        most, name = max(peaks, default=(None, ""))
        bound = (found.get("bound") or 256 << 20) / (1 << 20)
        got = None if most is None else most / (1 << 20)
        remark = f"`kai {name}`" if name else ""
        yield Figure("memory", f"{what}: the largest peak of a command", "MiB", bound, bound, got, True, remark)
