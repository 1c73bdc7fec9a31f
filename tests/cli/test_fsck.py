"""``kai fsck`` as it is typed: what it says, its document and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.doors import process
from tests.engine.damage import remove_catalog, tiny
from tests.engine.homes import remove

PAGES = ("bot: 2 versions", "good")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that is whole."""
    tiny(tmp_path / "home")
    return tmp_path / "home"


def test_a_home_that_is_whole(home: Path) -> None:
    found = process("fsck", cwd=home)
    assert (found.code, found.err) == (0, "")
    assert all(text in found.out for text in PAGES)
    document = process("fsck", "bot", "--json", cwd=home).document("fsck")
    assert document["ok"] is True
    assert document["findings"] == []
    assert document["agents"][0]["versions"] == ["v1.0.0", "v1.0.1"]
    wrong = process("fsck", "bto", "--json", cwd=home)
    assert wrong.code == 9
    assert wrong.error()["facts"]["nearest"] == ["bot"]


def test_a_home_without_its_catalog(home: Path) -> None:
    remove_catalog(home)
    found = process("fsck", "--json", cwd=home)
    assert found.code == 4
    assert found.document("fsck")["findings"][0]["where"] == "catalog"
    assert found.error()["code"] == "E102"
    assert "kai fsck --repair" in process("status", cwd=home).err
    planned = process("fsck", "--repair", "--dry-run", "--json", cwd=home)
    assert planned.code == 4
    plan = planned.document("fsck")["plan"]
    assert plan["catalog"] is True
    assert [it["versions"] for it in plan["agents"]] == [2]
    assert "would make the catalog anew" in process("fsck", "--dry-run", cwd=home).out
    done = process("fsck", "--repair", cwd=home)
    assert (done.code, done.err) == (0, "")
    assert "make the catalog anew" in done.out
    assert process("fsck", "--repair", cwd=home).out.startswith("nothing to repair")
    assert process("status", cwd=home).code == 0


def test_what_is_lost_for_good_is_said_and_ends_with_4(home: Path) -> None:
    for name in ("versions", "workspace"):
        remove(home / "bot" / name)
        (home / "bot" / name).mkdir()
    for pack in (home / ".kai/packs/bot").glob("*.pack"):
        data = bytearray(pack.read_bytes())
        at = data.find(b"print(1)")
        if at > 0:
            data[at] ^= 1
            pack.write_bytes(data)
    found = process("fsck", cwd=home)
    assert found.code == 4
    assert "bot: damage: pack v1.0.1 logic.py: the payload's checksum does not match" in found.out
    done = process("fsck", "--repair", "--json", cwd=home)
    assert done.code == 4
    document = done.document("fsck")
    assert document["applied"] is True
    assert document["plan"]["agents"][0]["lost"]
    assert [(it["versions"], it["path"]) for it in document["findings"]] == [(["v1.0.1"], "logic.py")]
    assert (home / document["quarantine"]).is_dir()
    assert "could not be repaired" in done.error()["message"]
