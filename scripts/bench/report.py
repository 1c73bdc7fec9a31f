"""The report: what was to be reached, then each workload's table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from scripts.bench import targets
from scripts.bench.figures import PARTS
from scripts.bench.results import LEFT_OUT, Results, ratio

MIB = 1 << 20
MS = 1_000.0
NONE = "-"


def text(results: Results) -> str:
    """All of it, as Markdown."""
    parts = [_head(results), _goals(results), "![ratios](ratios.svg)\n", "![growth](growth.svg)\n"]
    parts += [_history(results, name) for name in ("W1", "W2", "W3", "W4") if name in results.sections]
    parts += [
        _growth(results),
        _rollback(results),
        _startup(results),
        _memory(results),
        _transfer(results),
        _profiles(results),
    ]
    return "\n".join(part for part in parts if part)


def summary(results: Results) -> str:
    """The goals, for a terminal."""
    lines = []
    for figure in targets.figures(results):
        got = number(figure.got, figure.unit)
        outcome = figure.outcome.replace("*", "")
        lines.append(f"{figure.section:<9}{figure.what:<75}{got:>12}  {outcome} {figure.remark}".rstrip())
    return "\n".join(lines)


def faults(results: Results) -> list[str]:
    """Where kaivc itself failed, or gave back other bytes than it was given; what there was no time for is no fault."""
    found = []
    for name, section in results.sections.items():
        if "kai" in section.get("runs", {}):
            found.append((name, results.trouble(name, "kai")))
        run = section.get("run") or {}
        found += [
            (name, part["failed"]) for part in (run, *run.values()) if isinstance(part, dict) and "failed" in part
        ]
    return [f"{name}: {trouble}" for name, trouble in found if trouble and trouble != LEFT_OUT]


# ---------------------------------------------------------------- parts


def _head(results: Results) -> str:
    sources = {name: section["source"] for name, section in results.sections.items()}
    lines = [
        "# Benchmarks: the figures",
        "",
        "Written by `make bench`; [README.md](README.md) says what is measured and how to read it.",
        "The raw figures are in [results.json](results.json).",
        "",
        f"- machine: {_machine(results.machine)}",
    ]
    if results.size != "full":
        lines.append(f"- **the {results.size} sizes**: they show that everything runs, not how fast it is")
    for source in _distinct(sources.values()):
        names = ", ".join(name for name, its in sources.items() if _key(its) == _key(source))
        state = "with changes that are not committed" if source["dirty"] else "clean"
        lines.append(f"- kaivc at commit {source['commit'][:12]} ({state}), {source['date']}: {names}")
    costs = [f"{name} {it['create_us']:.0f} us" for name, it in results.sections.items() if "create_us" in it]
    lines.append(f"- CPU of making one small file on this disk, before each section: {', '.join(costs) or NONE}")
    versions = [f"{name} {its['version'] or '(not installed)'}" for name, its in results.systems.items()]
    lines.append(f"- systems: {', '.join(versions)}")
    return "\n".join([*lines, ""])


def _machine(it: dict[str, Any]) -> str:
    return (
        f"{it['cores']} cores ({it['processor']}), {it['memory'] / (1 << 30):.0f} GiB of memory, "
        f"{it['system']} {it['kernel']}, {it['file_system']}, Python {it['python']}, SQLite {it['sqlite']}; "
        f"load before the run: {', '.join(str(load) for load in it['load'])}"
    )


def _key(source: dict[str, Any]) -> tuple[str, bool, str]:
    return source["commit"], source["dirty"], source["date"].partition(" ")[0]


def _distinct(sources: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - a view of values
    seen = set()
    for source in sources:
        if _key(source) not in seen:
            seen.add(_key(source))
            yield source


def _goals(results: Results) -> str:
    rows = [
        (
            figure.section,
            figure.what,
            f"{'at most ' if figure.at_most else ''}{number(figure.reach, figure.unit)}",
            number(figure.aim, figure.unit),
            number(figure.got, figure.unit),
            figure.outcome,
            figure.remark,
        )
        for figure in targets.figures(results)
    ]
    return "## Figures to reach\n\n" + table(("", "figure", "reach", "aim", "got", "", "remark"), rows)


def _history(results: Results, section: str) -> str:
    it = results.sections[section]
    title = f"## {section}: {it['title']}\n"
    if it.get("left_out"):
        return f"{title}\nLeft out: {it['left_out']}\n"
    times = [_times(results, section, name) for name in results.measured(section)]
    rooms = [_rooms(results, section, name) for name in results.measured(section)]
    heads = ("system", "versions", "first commit", "next commit", "÷ durable", "÷ returned")
    steps = ("restore", "÷ kai", "status", "switch", "peak MiB")
    rounds = max((len(runs) for runs in it["runs"].values()), default=0)
    parts = [f"{title}\n{it.get('figures', '')}. Wall / CPU, medians; {rounds} round{'s' * (rounds != 1)}.\n"]
    parts.append(table((*heads, *steps), [row for found in times for row in found]))
    parts.append(table(("system", "bytes kept, MiB", "disk blocks, MiB", "after tidying", "÷ kai", "parts"), rooms))
    parts.append(_depth(results, section))
    troubles = [(name, trouble) for name in results.measured(section) if (trouble := results.trouble(section, name))]
    if troubles:
        parts.append(table(("system", "why it has no figures"), troubles))
    parts.append(
        table(("system", "how it is used"), [(n, results.systems[n]["used"]) for n in results.measured(section)])
    )
    return "\n".join(part for part in parts if part)


def _depth(results: Results, section: str) -> str:
    """What a commit takes as the history of the one agent grows: CPU, tenth by tenth, of the first round."""
    runs = [(name, results.runs(section, name)) for name in results.measured(section)]
    rows = [
        (name, *map(seconds, run[0]["next_parts"])) for name, run in runs if run and len(run[0]["next_parts"]) == PARTS
    ]
    heads = ("CPU of a commit, by tenths", *(str(number + 1) for number in range(PARTS)))
    return table(heads, rows) if rows else ""


def _times(results: Results, section: str, name: str) -> Iterator[Sequence[str]]:
    def value(*keys: str) -> float | None:
        return results.value(section, name, *keys)

    def pair(step: str, prefix: str = "") -> str:
        return f"{seconds(value(step, prefix + 'wall'))} / {seconds(value(step, prefix + 'cpu'))}"

    def against(prefix: str) -> str:
        mine = (
            results.value(section, "kai", "next", f"{prefix}wall"),
            results.value(section, "kai", "next", f"{prefix}cpu"),
        )
        return f"{times(ratio(value('next', 'wall'), mine[0]))} / {times(ratio(value('next', 'cpu'), mine[1]))}"

    restores = [ratio(value("restore", key), results.value(section, "kai", "restore", key)) for key in ("wall", "cpu")]
    peaks = [peak for step in ("first", "next", "restore") if (peak := value(step, "peak")) is not None]
    count = value("versions")
    steps = (
        pair("restore"),
        " / ".join(times(it) for it in restores),
        pair("status"),
        pair("switch"),
        f"{max(peaks) / MIB:.0f}" if peaks else NONE,
    )
    if results.trouble(section, name).startswith("invalid"):
        yield name, "**invalid**", *[NONE] * 9
        return
    shown = NONE if count is None else f"{count:.0f}"
    if name == "kai":
        yield "kai, durable", shown, pair("first", "durable_"), pair("next", "durable_"), "1 / 1", NONE, *steps
        yield "kai, returned", shown, pair("first"), pair("next"), against("durable_"), "1 / 1", *[NONE] * 5
    else:
        yield name, shown, pair("first"), pair("next"), against("durable_"), against(""), *steps


def _rooms(results: Results, section: str, name: str) -> Sequence[str]:
    def room(when: str, *parts: str, allocated: bool = False) -> float | None:
        return results.room(section, name, when, *parts, allocated=allocated)

    kept = ("packs", "catalog") if name == "kai" else ("store",)
    mine = results.room(section, "kai", "sizes", "packs", "catalog")
    fewer = results.value(section, name, "versions") != results.value(section, "kai", "versions")
    parts = [f"{part} {mib(room('sizes', part))}" for part in ("packs", "catalog", "views")] if name == "kai" else []
    return (
        name,
        mib(room("sizes", *kept)),
        mib(room("sizes", *kept, allocated=True)),
        mib(room("tidy_sizes", *kept)),
        "fewer versions" if fewer else times(ratio(room("sizes", *kept), mine)),
        ", ".join(parts),
    )


def _growth(results: Results) -> str:
    sizes = results.alone("W5", "sizes")
    if not sizes:
        return _failed(results, "W5", "W5: a home that grows")
    steps = ("open", "commit", "rollback", "status", "log", "gc")
    rows = []
    for it in sizes:
        cells = [f"{seconds(it[step].get('wall'))} / {seconds(it[step].get('cpu'))}" for step in steps]
        durable = f"{seconds(it['commit'].get('durable_wall'))} / {seconds(it['commit'].get('durable_cpu'))}"
        rows.append((f"{it['versions']:,}", f"{it['agents']:,}", durable, *cells, mib(it["packs"]), mib(it["catalog"])))
    heads = ("versions", "agents", "commit, durable", *steps, "packs, MiB", "catalog, MiB")
    stopped = results.alone("W5", "stopped")
    after = f"\nIt grew no further: stopped {stopped}.\n" if stopped else ""
    return f"## W5: a home that grows\n\nWall / CPU, medians, in process.\n\n{table(heads, rows)}{after}"


def _rollback(results: Results) -> str:
    cases = results.alone("rollback")
    if not cases or "failed" in cases:
        return _failed(results, "rollback", "Rollback")
    rows = []
    for name, case in cases.items():
        clean, dirty = case["clean"], case["dirty"]
        cells = [
            clean.get("moved_wall"),
            clean.get("wall"),
            clean.get("cpu"),
            dirty.get("moved_wall"),
            dirty.get("wall"),
        ]
        rows.append((name, *(seconds(cell) for cell in cells)))
    heads = ("workspace", "clean: `current` moves", "all done", "CPU", "dirty: `current` moves", "all done")
    return f"## Rollback\n\nViews present; in process; wall unless it says CPU.\n\n{table(heads, rows)}"


def _startup(results: Results) -> str:
    commands = results.alone("startup")
    if not commands or "failed" in commands:
        return _failed(results, "startup", "Whole processes")
    nothing = commands["python -c pass"]["cpu"]
    rows = [
        (
            f"`{name}`",
            seconds(it["cpu"]),
            times(ratio(it["cpu"], nothing)),
            seconds(it["wall"]),
            f"{it['peak'] / MIB:.0f}",
        )
        for name, it in commands.items()
    ]
    return f"## Whole processes on a small home\n\n{table(('', 'CPU', '÷ python', 'wall', 'peak MiB'), rows)}"


def _memory(results: Results) -> str:
    parts = []
    for case, what in (("blob", "a file of {:,} MiB"), ("tree", "a tree of {:,} files")):
        found = results.alone("memory", case)
        if not found or "failed" in found:
            continue
        amount = found["amount"] // MIB if case == "blob" else found["amount"]
        rows = []
        for name, it in found["commands"].items():
            if "failed" in it:
                rows.append((f"`kai {name}`", it["failed"], NONE, NONE))
            else:
                rows.append((f"`kai {name}`", f"{it['peak'] / MIB:.0f}", seconds(it["cpu"]), seconds(it["wall"])))
        bound = f"Bound: {found['bound'] / MIB:.0f} MiB."
        parts.append(f"### {what.format(amount)}\n\n{bound}\n\n{table(('', 'peak MiB', 'CPU', 'wall'), rows)}")
    return "## Memory\n\n" + "\n".join(parts) if parts else _failed(results, "memory", "Memory")


def _transfer(results: Results) -> str:
    found = results.alone("transfer")
    if not found or "failed" in found:
        return _failed(results, "transfer", "Transfer")
    parts = []
    for case, systems in found.items():
        rows = []
        for name, steps in systems.items():
            if "left_out" in steps:
                rows.append((name, steps["left_out"], NONE, NONE, NONE, NONE))
            rows += [
                (
                    name,
                    step,
                    f"{it['sent'] / MIB:,.2f}",
                    seconds(it["wall"]),
                    seconds(it["cpu"]),
                    f"{it['peak'] / MIB:.0f}",
                )
                for step, it in steps.items()
                if step != "left_out"
            ]
        heads = ("system", "step", "MiB sent", "wall", "CPU", "peak MiB")
        parts.append(f"### A state of {case}\n\n{table(heads, rows)}")
    return "## Transfer\n\n" + "\n".join(parts)


def _profiles(results: Results) -> str:
    """What bounds kaivc: of each step the functions that take the most time themselves."""
    parts = []
    for name, section in results.sections.items():
        for step, lines in section.get("profile", {}).items():
            rows = [(f"{share:.0%}", f"{calls:,}", seconds(own), f"`{place}`") for share, calls, own, place in lines]
            parts.append(f"### {name}, {step}\n\n" + table(("share", "calls", "own time", "function"), rows))
    if not parts:
        return ""
    how = "From a run of its own: a profile slows small functions down more than large ones."
    return f"## Where kaivc's time goes\n\n{how}\n\n" + "\n".join(parts)


def _failed(results: Results, section: str, title: str) -> str:
    if section not in results.sections:
        return ""
    return f"## {title}\n\nNo figures: {results.alone(section, 'failed') or 'not measured'}.\n"


# ---------------------------------------------------------------- words


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what peers said is kept from breaking it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(value: str) -> str:
    shown = "".join(char if char.isprintable() else " " for char in value)
    return shown.replace("|", "\\|").replace("<", "&lt;")


def number(value: float | None, unit: str) -> str:
    """A figure with its unit."""
    if value is None:
        return NONE
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2  # noqa: PLR2004 - three digits
    return f"{value:.{digits}f}{unit}" if unit == "x" else f"{value:.{digits}f} {unit}"


def times(value: float | None) -> str:
    """A ratio."""
    return number(value, "x")


def seconds(value: float | None) -> str:
    """Seconds, in the unit that suits them."""
    if value is None:
        return NONE
    return f"{value:.2f} s" if value >= 1 else f"{value * MS:.3g} ms"


def mib(value: float | None) -> str:
    """Bytes in MiB."""
    return NONE if value is None else f"{value / MIB:.2f}" if value < 100 * MIB else f"{value / MIB:.0f}"
