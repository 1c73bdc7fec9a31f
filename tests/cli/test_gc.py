"""`kai gc`: the plan is told first, both forms of the answer, and what damage does to the exit code."""

from pathlib import Path

import pytest

from tests.cli.conftest import Kai

SOON = ("-c", "backups.keep=1", "-c", "backups.max_age=0s")


@pytest.fixture
def full(kai: Kai, home: Path) -> Path:
    """The home with four backups."""
    for number in range(4):
        (home / "bot/workspace/state.json").write_text(f'{{"n": {number}, "pad": "{number * 7919**1000}"}}')
        assert kai("rollback", "bot", "--to", f"v1.{number % 2}.0").code == 0
    return home


def test_a_dry_run_says_what_a_run_does(kai: Kai, full: Path) -> None:
    (dry,) = kai(*SOON, "gc", "bot", "--dry-run", "--json").document("gc")["agents"]
    assert dry["done"] is None
    assert len(dry["plan"]["expired"]) == 3
    told = kai(*SOON, "gc", "--dry-run")
    assert told.code == 0
    assert "  expire   backups/3  " in told.out
    assert told.out.endswith("dry run: nothing was collected\n")
    (done,) = kai(*SOON, "gc", "bot", "--json").document("gc")["agents"]
    assert done["plan"] == dry["plan"]
    assert done["done"]["expired"] == 3
    assert done["done"]["objects"] == dry["plan"]["dead_objects"]
    told = kai(*SOON, "gc")
    assert told.code == 0
    assert told.out.startswith("bot: nothing to collect, ")


def test_the_plan_is_told_before_it_is_done(kai: Kai, full: Path) -> None:
    lines = kai(*SOON, "gc").out.splitlines()
    assert " go, " in lines[0]
    assert lines[1].startswith("  expire ")
    assert " collected, " in lines[-1]


def test_the_log_says_what_is_collected(kai: Kai, full: Path) -> None:
    assert kai(*SOON, "gc").code == 0
    told = kai("reflog", "bot").out.splitlines()
    assert [line.endswith("[its backup is collected]") for line in told[:4]] == [False, True, True, True]
    dropped, made = kai("reflog", "bot", "backups/3").out.splitlines()
    assert ": gc: 3 backups expired, " in dropped
    assert dropped.endswith("[collected]")
    assert made.endswith("[collected]")
    entries = kai("reflog", "bot", "--json").document("reflog")["entries"]
    assert [entry["collected"] for entry in entries[:2]] == [[], ["backup"]]


def test_damage_is_said_with_exit_4(kai: Kai, full: Path) -> None:
    (pack,) = (full / ".kai/packs/bot").iterdir()
    data = bytearray(pack.read_bytes())
    at = data.find(b"print('one')")
    assert at > 0
    data[at] ^= 1
    pack.write_bytes(data)
    result = kai(*SOON, "gc", "--json")
    assert result.code == 4
    (agent,) = result.document("gc")["agents"]
    assert "damaged" in agent["done"]["left"][0]
    assert agent["done"]["expired"] == 3
    assert result.error()["code"] == "E102"


def test_there_may_be_nobody_to_ask(kai: Kai, tmp_path: Path) -> None:
    assert kai("init", str(tmp_path / "a")).code == 0
    assert kai("gc", "--home", str(tmp_path / "a")).out == "there are no agents to look through\n"
    assert kai("gc", "nobody", "--home", str(tmp_path / "a")).code == 9
