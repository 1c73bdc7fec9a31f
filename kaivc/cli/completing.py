"""What a shell offers for the word at the cursor.

``kai __complete`` is called at every press of <TAB>, by the scripts in ``shells``: it imports little, writes nothing,
and where something is wrong it offers nothing instead of complaining. What it offers may be named by a stranger: it
goes out as data, quoted for the shell that asked.
"""

from __future__ import annotations

import os
import sys

from kaivc.cli.arguments import is_verb
from kaivc.cli.words import COMMANDS, EVERYWHERE, GROUPS, SETTINGS, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kaivc.storage.catalog import Catalog

FILES, DIRS = "files", "dirs"
"""What the shell itself completes."""
NO_SPACE = "nospace"
"""More follows what was completed."""
WAIT = 0.2

Offer = tuple[str, str]
"""A word, and what is said of it."""


def complete(args: list[str]) -> None:
    """Answer a shell: ``bash LINE BREAKS``, or ``zsh`` or ``fish`` and the words up to the cursor."""
    try:
        shell, *rest = args
        from kaivc.cli.bashwords import Line

        if shell == "bash":
            line = Line(*rest)
            how, offers = offered(line.words)
            records = [how, *filter(None, (line.quoted(word) for word, _ in offers))]
        else:
            if shell == "fish":
                rest[-1:] = Line(f"kai {rest[-1]}").words  # the word at the cursor comes with its quotes
            how, offers = offered(rest)
            if shell == "fish":
                offers = _for_fish(how, offers)
            records = [how, *(it for offer in offers for it in _record(shell, offer))]
        data = b"".join(os.fsencode(record) + b"\0" for record in records)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except Exception:  # noqa: BLE001, S110 - in the middle of a line that somebody types, there is no place for a complaint
        pass


def _record(shell: str, offer: Offer) -> tuple[str, ...]:
    word, told = offer
    if shell == "zsh":
        return offer
    return () if "\t" in word or "\n" in word else (f"{word}\t{told}",)


def _for_fish(how: str, offers: list[Offer]) -> list[Offer]:
    """Fish puts a space behind the only word there is, unless it ends with such a sign as @."""
    if how != NO_SPACE:
        return offers
    more = [(f"{word}@", "its revisions") for word, _ in offers if word[-1:] not in "/=@"]
    return [*offers, *more]


# ---------------------------------------------------------------- what the words before say


class _Before:
    """The words before the cursor: the command, its positionals, the options' values, and what is awaited."""

    def __init__(self, words: list[str]) -> None:
        self.command = ""
        self.positionals: list[str] = []
        self.values: dict[str, str] = {}
        self.awaited = ""
        self.only_positionals = False
        self._words = words
        for word in words:
            self._take(word)

    def _take(self, word: str) -> None:
        if self.awaited:
            self.values[self.awaited] = word
            self.awaited = ""
        elif self.only_positionals:
            self.positionals.append(word)
        elif word == "--":
            self.only_positionals = True
        elif word.startswith("-") and len(word) > 1:
            name, sign, value = word.partition("=")
            if sign:
                self.values[name] = value
            elif self.kind_of(name):
                self.awaited = name
        elif self.command in COMMANDS and not (self.is_open and f"{self.command} {word}" in COMMANDS):
            self.positionals.append(word)
        else:
            self.command = f"{self.command} {word}".strip()

    @property
    def is_open(self) -> bool:
        """Whether the next word may still make it another command: one that is a verb, and the first word of others."""
        return self.command in GROUPS and not self.positionals and not is_verb(self.command, self._words)

    @property
    def options(self) -> Options:
        own = COMMANDS[self.command][2] if self.command in COMMANDS else {}
        return {**own, **EVERYWHERE}

    def kind_of(self, option: str) -> str:
        """What an option takes; empty for a flag."""
        return self.options.get(option, ("", ""))[0]

    @property
    def agent(self) -> str:
        return self.positionals[0].partition("@")[0] if self.positionals else ""


def offered(words: list[str]) -> tuple[str, list[Offer]]:
    """What fits the last of the words, and what else the shell is to do: FILES, DIRS, NO_SPACE or nothing."""
    *before, word = words or [""]
    seen = _Before(before)
    if seen.awaited:
        return _fitting(word, *_values(seen.kind_of(seen.awaited), word, seen))
    if not seen.only_positionals and word.startswith("-"):
        name, sign, value = word.partition("=")
        if sign:
            how, offers = _values(seen.kind_of(name), value, seen)
            return _fitting(word, how, [(f"{name}={it}", told) for it, told in offers])
        return _fitting(word, "", [(name, told) for name, (_, told) in seen.options.items()])
    if seen.command not in COMMANDS:
        return _fitting(word, "", _verbs(seen.command))
    if seen.is_open:
        how, agents = _values("agent", word, seen)
        return _fitting(word, how, _verbs(seen.command) + agents)
    kinds = COMMANDS[seen.command][1]
    last = kinds[-1] if kinds and kinds[-1].endswith("...") else ""
    kind = dict(enumerate(kinds)).get(len(seen.positionals), last)
    return _fitting(word, *_values(kind.removesuffix("..."), word, seen))


def _fitting(word: str, how: str, offers: list[Offer]) -> tuple[str, list[Offer]]:
    found = [offer for offer in offers if offer[0].startswith(word)]
    if found and all(name.endswith(("/", "=", "@")) for name, _ in found):
        how = NO_SPACE
    return how, found


def _verbs(group: str) -> list[Offer]:
    if group:
        inner = group + " "
        return [(name.removeprefix(inner), it[0]) for name, it in COMMANDS.items() if name.startswith(inner)]
    alone = {name: it[0] for name, it in COMMANDS.items() if " " not in name}
    return list({**alone, **GROUPS}.items())


def _values(kind: str, word: str, seen: _Before) -> tuple[str, list[Offer]]:
    """What a parameter of a kind can be; the kinds are made by tests/cli/words.py."""
    if kind in (FILES, DIRS):
        return kind, []
    if kind.startswith("="):
        return "", [(name, "") for name in kind[1:].split("|")]
    if kind == "setting":
        return NO_SPACE, [(f"{name}=", "") for name in SETTINGS]
    if kind in ("agent", "rev", "agentrev", "ref", "path", "source", "snapshot", "remote"):
        return _from_home(kind, word, seen)
    return "", []


# ---------------------------------------------------------------- what the home holds


def _from_home(kind: str, word: str, seen: _Before) -> tuple[str, list[Offer]]:
    from kaivc.layout import Layout, find_home

    named = os.path.expanduser(seen.values.get("--home") or os.environ.get("KAI_HOME") or ".")
    root = find_home(named) if os.path.isdir(named) else None
    if root is None:
        return (DIRS, []) if kind == "source" else ("", [])
    if kind in ("path", "snapshot", "remote"):
        return "", {"path": _paths, "snapshot": _snapshots, "remote": _remotes}[kind](root, word, seen)
    from kaivc.storage.catalog import Catalog

    catalog = Catalog.open(Layout(root).catalog, WAIT, scratch=_scratch(), read_only=True)
    agent, at, _ = word.partition("@")
    if kind in ("rev", "ref") and seen.agent and not at:
        revisions = _revisions(catalog, seen.agent)
        return "", [it for it in revisions if kind == "rev" or not it[0].startswith("v")]
    if at:
        return "", [(f"{agent}@{rev}", told) for rev, told in _revisions(catalog, agent)]
    if kind == "source" and "/" in word:
        return DIRS, []
    return "" if kind == "agent" else NO_SPACE, [(name, "") for name in catalog.agent_names()]


def _scratch() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - only private directories are made in it


def _revisions(catalog: Catalog, agent: str) -> list[Offer]:
    """The versions, the highest number first, then the branches, the newest first."""
    from kaivc.names import Version, heads_prefix, tags_prefix
    from kaivc.storage import journal

    row = catalog.agent(agent)
    if row is None:
        return []
    tags, heads = tags_prefix(agent), heads_prefix(agent)
    numbers = sorted(Version.parse(name.removeprefix(tags)) for name in journal.refs(catalog, row.id, tags))
    branches = [name.removeprefix(heads) for name in journal.refs(catalog, row.id, heads)]
    told = {"current": "the version in force"}
    named = [(number.tag, "") for number in reversed(numbers)]
    return named + [(name, told.get(name, "")) for name in sorted(branches, key=_newest_first)]


def _snapshots(root: str, word: str, seen: _Before) -> list[Offer]:  # noqa: ARG001 - one shape for all kinds
    """The ids of all snapshots, committed or recorded, the newest first."""
    from kaivc.layout import Layout
    from kaivc.names import is_name, snapshots_prefix
    from kaivc.storage import journal
    from kaivc.storage.catalog import Catalog

    catalog = Catalog.open(Layout(root).catalog, WAIT, scratch=_scratch(), read_only=True)
    found: dict[str, str] = {}
    for agent in catalog.agent_names():
        row, prefix, records = catalog.agent(agent), snapshots_prefix(agent), Layout(root).snapshot_temp(agent)
        names = os.listdir(records) if os.path.isdir(records) else []
        ids = [it.removesuffix(".json") for it in names if it.endswith(".json")]
        ids += [name.removeprefix(prefix) for name in journal.refs(catalog, row.id, prefix)] if row else []
        found |= {name: f"of {agent}" for name in ids if is_name(name)}
    return sorted(found.items(), reverse=True)


def _remotes(root: str, word: str, seen: _Before) -> list[Offer]:  # noqa: ARG001 - as above
    """The remotes, and where they are."""
    from kaivc import remotelist
    from kaivc.layout import Layout

    return [(it.name, remotelist.shown(it.url)) for it in remotelist.listed(Layout(root).remotes).values()]


def _newest_first(branch: str) -> tuple[str, int, str]:
    kind, _, number = branch.partition("/")
    return ("" if branch == "current" else kind, -int(number) if number.isdigit() else 0, number)


def _paths(root: str, word: str, seen: _Before) -> list[Offer]:
    """The paths of a version in the directory that the word names; what is below them comes at the next <TAB>."""
    from kaivc import api, revisions, trees

    agent, _, rev = (seen.positionals or [""])[0].partition("@")
    home = api.open(root, read_only=True)
    repo = home.opened.repository(agent)
    named = rev or seen.values.get("--from") or seen.values.get("--to")
    version = revisions.resolve(repo, named or "current")
    directory, slash, _ = word.rpartition("/")
    prefix = os.fsencode(directory + slash)
    names = set()
    for path in trees.flatten(repo.store, version.tree_oid):
        if path.startswith(prefix):
            name, below, _ = path[len(prefix) :].partition(b"/")
            names.add(prefix + name + below)
    return [(os.fsdecode(name), "") for name in sorted(names)]
