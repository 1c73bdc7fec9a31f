"""What an old catalog still says: the rows that can be read and fit their checksums, by the names of agents."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import Any

from kaivc.records import dataclass, field
from kaivc.storage import salvage
from kaivc.storage.catalog import AgentRow
from kaivc.storage.chain import OpRecord, read_op
from kaivc.storage.gitobjects import MalformedObject
from kaivc.storage.salvage import Row


@dataclass
class OldAgent:
    """One agent's good rows. ``row`` is None where its own is damaged; ``refs_whole`` says that no ref row is."""

    row: AgentRow | None = None
    packs: dict[str, dict[str, Any]] = field(default_factory=dict)
    refs: dict[str, bytes] = field(default_factory=dict)
    refs_whole: bool = True
    digests: dict[int, bytes] = field(default_factory=dict)
    reflog: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)
    intents: list[tuple[str, bytes]] = field(default_factory=list)
    intents_whole: bool = True


@dataclass
class OldCatalog:
    """All good rows. ``agents_whole`` says that every row of an agent could be read, so that no name is missing.

    ``payloads`` are op records that no pack may hold yet, of any agent, by their digests.
    """

    meta: dict[str, Any] = field(default_factory=dict)
    payloads: dict[bytes, tuple[OpRecord, bytes]] = field(default_factory=dict)
    agents: dict[str, OldAgent] = field(default_factory=dict)
    former: dict[str, str] = field(default_factory=dict)
    agents_whole: bool = False


def read(path: str, scratch: str) -> OldCatalog:
    """The good rows of the catalog at ``path``; an empty one if it cannot be read at all."""
    try:
        db = salvage.connect(path, scratch)
    except sqlite3.Error:
        return OldCatalog()
    try:
        return _read(db)
    finally:
        db.close()


def _read(db: sqlite3.Connection) -> OldCatalog:
    old = OldCatalog(agents_whole=True)
    for row in salvage.rows(db, "meta"):
        if isinstance(row, Row):
            old.meta[row.values["key"]] = row.values["value"]
    names = _agents(db, old)
    for values in salvage.good_rows(db, "former"):
        if values["agent"] in names:
            old.former[values["name"]] = names[values["agent"]]
    for table in ("packs", "refs", "ops", "reflog", "intents"):
        _read_table(db, table, old, names)
    return old


def _read_table(db: sqlite3.Connection, table: str, old: OldCatalog, names: dict[int, str]) -> None:
    for item in salvage.rows(db, table):
        if not isinstance(item, Row):
            for agent in old.agents.values():
                _unreadable(agent, table)
            continue
        if table == "ops":
            _take_payload(old, item.values["payload"])
        if (name := names.get(item.values["agent"])) is not None:
            _take(old.agents[name], item)


def _agents(db: sqlite3.Connection, old: OldCatalog) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in salvage.rows(db, "agents"):
        if isinstance(row, Row) and row.whole:
            names[row.values["id"]] = row.values["name"]
            old.agents[row.values["name"]] = OldAgent(AgentRow(**row.values))
            continue
        old.agents_whole = False
        if isinstance(row, Row):
            number, name = row.values["id"], row.values["name"]
            if isinstance(number, int) and isinstance(name, str) and number not in names:
                names[number] = name  # a guess: what is read by it passes its own checks
                old.agents.setdefault(name, OldAgent())
    return names


def _unreadable(agent: OldAgent, table: str) -> None:
    if table == "refs":
        agent.refs_whole = False
    elif table == "intents":
        agent.intents_whole = False


def _take(agent: OldAgent, row: Row) -> None:
    values = row.values
    if not row.whole:
        _unreadable(agent, row.table)
    elif row.table == "packs":
        agent.packs[values["name"]] = values
    elif row.table == "refs":
        agent.refs[values["name"]] = values["oid"]
    elif row.table == "reflog":
        agent.reflog.setdefault(values["seq"], {})[values["ord"]] = values
    elif row.table == "intents":
        agent.intents.append((values["kind"], values["payload"]))
    elif row.table == "ops" and isinstance(values["seq"], int) and isinstance(values["digest"], bytes):
        agent.digests[values["seq"]] = values["digest"]


def _take_payload(old: OldCatalog, payload: object) -> None:
    if isinstance(payload, bytes):
        with suppress(MalformedObject):
            record = read_op(payload)
            old.payloads[record.digest] = (record, payload)
