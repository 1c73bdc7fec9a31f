"""``kai agent``: what people and programs read."""

from pathlib import Path

from tests.cli.conftest import Kai


def test_a_life_of_an_agent_told_to_people(kai: Kai, home: Path, workspace: Path) -> None:
    assert kai("agent", "list").out.startswith("bot  v1.1.0  2 versions, ")
    renamed = kai("agent", "rename", "bot", "rob", "--reason", "grown up")
    assert renamed.out.startswith("bot is rob now (3 refs moved)\n")
    assert "was renamed to 'rob'" in kai("log", "bot").err
    (home / "rob" / "workspace" / ".env").write_text("K=1")
    (home / "rob" / "workspace" / "notes.txt").write_text("n")
    tried = kai("agent", "remove", "rob", "--dry-run")
    assert tried.out.startswith("rob: removed; 2 versions stay (dry run: nothing was removed)\n")
    assert "  save    notes.txt\n  keep    .env\n" in tried.out
    assert (home / "rob" / "workspace" / "notes.txt").exists()
    assert "in rob@backups/4\n" in kai("agent", "remove", "rob").out
    assert kai("agent", "list").out == "no agent is here; `kai new NAME` makes one\n"
    assert "removed 20" in kai("agent", "list", "--all").out
    again = kai("agent", "remove", "rob")
    assert again.code == 9
    assert "kai new NAME --from rob" in again.err
    assert "v1.1.0" in kai("log", "rob", "--oneline").out
    assert not workspace.exists()


def test_documents_hold_to_their_schemas(kai: Kai, home: Path, tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    kai("new", "far", "--link", str(live))
    listed = kai("agent", "list", "--json").document("agent-list")["agents"]
    assert [(it["name"], it["linked"], it["state"]) for it in listed] == [("bot", False, "live"), ("far", True, "live")]
    renamed = kai("agent", "rename", "far", "off", "--json").document("agent-rename")
    assert (renamed["former"], renamed["agent"], renamed["workspace"]) == ("far", "off", {"path": str(live)})
    live.rename(tmp_path / "moved")
    lost = kai("status", "off", "--json")
    assert (lost.code, lost.error()["code"]) == (9, "E323")
    assert kai("agent", "link", "off", str(tmp_path / "moved"), "--json").document("agent-link")["before"] == {
        "path": str(live)
    }
    removed = kai("agent", "remove", "off", "--json").document("agent-remove")
    assert (removed["left"], removed["backup"], removed["applied"]) == ({"path": str(tmp_path / "moved")}, None, True)
    dry = kai("agent", "remove", "bot", "--dry-run", "--json").document("agent-remove")
    assert (dry["applied"], dry["op_id"], dry["saved"]) == (False, None, [])
    kai("agent", "remove", "bot")
    listed = kai("agent", "list", "--all", "--json").document("agent-list")["agents"]
    assert [(it["name"], it["state"], it["former"]) for it in listed] == [
        ("bot", "removed", []),
        ("off", "removed", ["far"]),
    ]
    assert kai("agent", "rename", "off", "on", "--json").error()["code"] == "E302"


def test_the_log_counts_moves_across_a_rename(kai: Kai, home: Path) -> None:
    kai("agent", "rename", "bot", "rob")
    entries = kai("reflog", "rob", "--all", "--json").document("reflog")["entries"]
    places = {(it["verb"], it["ref"].split("/", 2)[2]): it["index"] for it in entries if it["ref"].endswith("current")}
    assert places == {("rename", "bot/current"): None, ("rename", "rob/current"): None, ("commit", "bot/current"): 1}
    assert "bot/current: rename: " in kai("reflog", "rob", "--all").out
    assert kai("rev-parse", "rob@{1}").code == 0
    assert [it["index"] for it in kai("reflog", "rob", "--json").document("reflog")["entries"]] == [0, 1]


def test_a_verb_of_a_group_that_is_not_there(kai: Kai) -> None:
    wrong = kai("agent", "renmae", "a", "b")
    assert wrong.code == 2
    assert "agent rename" in wrong.err
    assert kai("agent").code == 2
    assert "list" in kai("agent", "--help").out
