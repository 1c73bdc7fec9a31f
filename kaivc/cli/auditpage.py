"""An audit as one HTML page: nothing is loaded from elsewhere, nothing in it runs, and it can be printed.

Every text in a report is hostile: names, notes, reasons and paths are shown with their control and bidi characters
escaped, then escaped for HTML. The page's policy (CSP) allows its own style sheet, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape as html_escape
from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.auditdrawing import drawing
from kaivc.cli.escape import escape, escape_lines, escape_path

if TYPE_CHECKING:
    from kaivc.findings import Finding
    from kaivc.report import AgentReport, AuditReport, MoveReport, Recheck, VersionReport

STYLE = """
:root { color-scheme: light dark; --ink: #1c2326; --soft: #5b676d; --line: #d5dcdf; --page: #fff; --pale: #f4f6f7;
        --good: #17663c; --bad: #a3201b; --accent: #205d8c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9eb; --soft: #9dabb2; --line: #3b464c; --page: #14191c; --pale: #1d2428;
          --good: #58c08a; --bad: #ff8a80; --accent: #7fb8e4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 64rem; background: var(--page); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.3rem; margin: 3rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; } h4 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
code, pre, .id { font: 12.5px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: var(--pale); border: 1px solid var(--line); border-radius: 4px;
      padding: .6rem .75rem; margin: .25rem 0 .75rem; }
.banner { border-left: .5rem solid; padding: .75rem 1rem; margin: 0 0 1.5rem; background: var(--pale); }
.banner p { margin: .25rem 0 0; color: var(--ink); }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; } td { overflow-wrap: anywhere; } .number { text-align: right; }
.finding { border: 1px solid var(--line); border-left: .3rem solid var(--bad); border-radius: 4px;
           padding: .5rem .75rem; margin: .5rem 0; }
.finding.note { border-left-color: var(--soft); } .finding p { margin: 0; }
svg { display: block; width: 100%; height: auto; margin: .5rem 0; }
svg text { fill: var(--ink); font: 11px ui-monospace, monospace; } svg .soft { fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .path { fill: none; stroke: var(--accent); stroke-width: 1.5; }
svg .move { fill: var(--accent); } svg .undone { fill: var(--page); stroke: var(--accent); stroke-width: 1.5; }
summary { cursor: pointer; color: var(--soft); }
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; } .finding, tr, svg { break-inside: avoid; }
  h2, h3, h4 { break-after: avoid; } a { color: inherit; text-decoration: none; }
}
"""

POLICY = "default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'"
GOOD, BAD = "as it should be", "differs"


def page(report: AuditReport) -> str:
    """The whole page."""
    return "\n".join(_page(report)) + "\n"


def _page(report: AuditReport) -> Iterator[str]:
    digest = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    about = report.scope or "all agents"
    yield "<!doctype html>"
    yield '<html lang="en">'
    yield "<head>"
    yield '<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{POLICY.format(digest)}">'
    yield '<meta name="referrer" content="no-referrer">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Audit of {_text(about)}, {render.rfc3339(report.time_ns)}</title>"
    yield f"<style>{STYLE}</style>"
    yield "</head>"
    yield "<body>"
    yield from _banner(report)
    yield from _facts(
        ("asked for", _text(about)),
        ("home", _id(report.home)),
        ("object format", _text(report.object_format)),
        ("when", render.rfc3339(report.time_ns)),
        ("who", _text(report.actor)),
        ("with", f"kai {_text(report.kaivc)}"),
        *([("expected head", _id(report.expected_head))] if report.expected_head else []),
    )
    yield from _findings(report.findings)
    for agent in report.agents:
        yield from _agent(agent)
    yield from _closing()
    yield "</body>"
    yield "</html>"


def _banner(report: AuditReport) -> Iterator[str]:
    number = len(report.differences)
    verdict = "All is as it should be" if report.ok else f"{render.counted(number, 'difference')} found"
    yield f'<header class="banner {_tone(report.ok)}">'
    yield f"<h1>{_mark(report.ok)} {verdict}</h1>"
    versions = sum(len(agent.versions) for agent in report.agents)
    agents = render.counted(len(report.agents), "agent")
    ops = render.counted(sum(agent.ops for agent in report.agents), "op record")
    yield (
        f"<p>{render.counted(versions, 'version')} of {agents}, recomputed from the stored bytes; {ops} of who moved "
        "what, when and why.</p>"
    )
    yield "</header>"


def _agent(agent: AgentReport) -> Iterator[str]:
    yield f"<h2>{_mark(agent.ok)} Agent {_text(agent.agent)}</h2>"
    if agent.removed_ns:
        yield f"<p>It was removed {render.rfc3339(agent.removed_ns)}; its versions and its log stay.</p>"
    yield from _facts(
        ("head of the chain", _id(f"{agent.ops}:{agent.head}")),
        ("op records", f"{agent.ops}"),
        ("objects", f"{agent.objects}, {render.size(agent.bytes)}, in {render.counted(agent.packs, 'pack')}"),
    )
    yield "<p class=soft>Keep the head elsewhere: with it, a later audit can prove that the log only grew.</p>"
    yield from _findings(agent.findings)
    if agent.moves:
        yield "<h3>Where <code>current</code> stood</h3>"
        yield from drawing(agent.moves)
        yield from _table(
            ("", "when", "what", "from", "to", "who", "why"), (_move(move) for move in reversed(agent.moves))
        )
    if agent.versions:
        yield "<h3>Versions</h3>"
        yield from _table(
            ("", "version", "commit", "created", "parent", "files", "bytes", "state", "config", "view"),
            (_row(version) for version in agent.versions),
        )
    for version in agent.versions:
        yield from _version(version)
    if agent.refs:
        yield "<h3>Names</h3>"
        yield from _table(("name", "points at"), ((_text(name), _id(oid)) for name, oid in agent.refs))
    yield from _recheck(f"Re-check {_text(agent.agent)}", agent.recheck)


def _move(it: MoveReport) -> tuple[str, ...]:
    what = _text(it.verb)
    if it.undoes is not None:
        what += f" <span class=soft>of {it.undoes}</span>"
    if it.undone_by is not None:
        what += f" <span class=soft>(undone by {it.undone_by})</span>"
    if it.backup is not None:
        what += f" <span class=soft>saved backups/{it.backup}</span>"
    here, there = _text(it.from_version or "-"), _text(it.to_version or "-")
    return f"{it.seq}", render.rfc3339(it.time_ns), what, here, there, _text(it.actor), _text(it.reason)


def _row(it: VersionReport) -> tuple[str, ...]:
    state, config = it.state_stated == it.state_found, it.config_stated == it.config_found
    return (
        _mark(it.ok),
        f"{_text(it.version)}{' <span class=soft>in force</span>' if it.in_force else ''}",
        _id((it.commit or "unreadable")[: render.SHORT]),
        _text(it.created or "-"),
        _text(it.parent or "-"),
        f"{it.files}",
        render.size(it.bytes),
        _mark(state and it.state_found is not None),
        _mark(config and it.config_found is not None),
        "compared" if it.view else "<span class=soft>not there</span>",
    )


def _version(it: VersionReport) -> Iterator[str]:
    yield f"<h4>{_mark(it.ok)} {_text(it.version)}</h4>"
    yield from _findings(it.findings)
    yield f"<details{'' if it.ok else ' open'}><summary>What it says of itself</summary>"
    yield from _facts(
        ("tag", _id(it.tag)),
        ("commit", _id(it.commit)),
        ("tree", _id(it.tree)),
        ("parent", f"{_text(it.parent or 'none')} {_id(it.parent_commit or '')}"),
        ("created", _text(it.created or "-")),
        ("author", _text(it.author or "-")),
        ("type", _text(it.snapshot_type or "-")),
        ("files", f"{it.files}, {render.size(it.bytes)}, in {render.counted(it.objects, 'object')}"),
        ("state, stated", _id(it.state_stated)),
        ("state, recomputed", _id(it.state_found)),
        ("config, stated", _id(it.config_stated)),
        ("config, recomputed", _id(it.config_found)),
    )
    if it.notes:
        lines = "\n".join(html_escape(line) for line in escape_lines(it.notes.strip()))
        yield f"<pre>{lines}</pre>"
    yield "</details>"
    yield from _recheck(f"Re-check {_text(it.version)}", it.recheck)


def _findings(them: Iterable[Finding]) -> Iterator[str]:
    for it in them:
        yield f'<div class="finding{"" if it.is_damage else " note"}">'
        path = "" if it.path is None else f" <code>{html_escape(escape_path(it.path))}</code>"
        yield f"<p><strong>{_text(it.where)}</strong> {_text(', '.join(it.versions))}{path}: {_text(it.problem)}</p>"
        yield from _facts(*((name, _id(value)) for name, value in particulars(it)))
        yield "</div>"


def particulars(it: Finding) -> list[tuple[str, str]]:
    """What else a finding says, by name."""
    at = None
    if it.pack is not None:
        at = f"{it.pack}" + ("" if it.offset is None else f", byte {it.offset}")
        at += "" if it.end is None or it.offset is None else f" to {it.end}"
    known = [
        ("expected", it.expected),
        ("found", it.found),
        ("object", it.object),
        ("pack", at),
        ("op record", None if it.seq is None else str(it.seq)),
        ("row", it.row),
    ]
    return [(name, value) for name, value in known if value is not None]


def _recheck(title: str, commands: tuple[Recheck, ...]) -> Iterator[str]:
    if not commands:
        return
    yield f"<details><summary>{title} with git, sqlite3 and sha256sum</summary>"
    for it in commands:
        yield f"<p>{_text(it.what)}:</p>"
        yield f"<pre>$ {html_escape(it.command)}\n{html_escape(it.expected)}</pre>"
    yield "</details>"


def _closing() -> Iterator[str]:
    yield "<h2>How to check this report</h2>"
    yield (
        "<p>Nothing here has to be believed. Each part ends with commands of git, sqlite3 and sha256sum, and with what "
        "they print if the report is right; run them in the home, in one shell, those of an agent first. The page "
        "<code>docs/how-to/prove-without-kai.md</code> "
        "goes the whole way, from the files on the disk to the chain of op records.</p>"
    )


# ---------------------------------------------------------------- pieces


def _text(text: str) -> str:
    return f"<bdi>{html_escape(escape(text))}</bdi>" if not text.isascii() else html_escape(escape(text))


def _id(text: str | None) -> str:
    return "-" if text is None else f"<span class=id>{html_escape(escape(text))}</span>"


def _tone(ok: bool) -> str:
    return "good" if ok else "bad"


def _mark(ok: bool) -> str:
    sign, word = ("&#10003;", GOOD) if ok else ("&#10007;", BAD)
    return f'<span class={_tone(ok)} title="{word}">{sign}</span>'


def _facts(*pairs: tuple[str, str]) -> Iterator[str]:
    if pairs:
        yield "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in pairs) + "</dl>"


def _table(names: Iterable[str], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "<table>"
    yield "<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>"
    yield "</table>"
