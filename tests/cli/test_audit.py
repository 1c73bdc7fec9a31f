"""`kai audit`: its three forms, where they go, and hostile text in all of them."""

import base64
import hashlib
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kaivc.errors import NoSpace
from kaivc.vfs import Vfs
from tests.cli.conftest import Kai

SCRIPT = "<script>alert(1)</script>"
BIDI, BELL = "\u202e", "\x07"
ODD = os.fsdecode(b"odd \xff <b>&amp;\"' \x1b[31m \xe2\x80\xae.py")


@pytest.fixture
def hostile(home: Path, kai: Kai) -> Path:
    """`bot` with a version, a move and a damaged view file, all of them named by somebody who means harm."""
    (home / "bot/workspace" / ODD).write_text("x")
    notes = f"{SCRIPT}{BIDI} & \"quotes\" 'too'\n\nsecond line {BELL}"
    assert kai("commit", "bot", "--version", "2.0.0", "-m", notes).code == 0
    assert kai("rollback", "bot", "--to", "v1.0.0", "--reason", f"</title>{SCRIPT}{BIDI}").code == 0
    path = home / "bot/versions/v2.0.0" / ODD
    path.chmod(0o600)
    path.write_text("y")
    return home


class Page(HTMLParser):
    """What a browser would see."""

    VOID = ("meta", "line", "path")

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text = ""
        self.style = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.text += data


KNOWN = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "h4", "p", "dl", "dt", "dd", "div",
    "table", "tr", "th", "td", "span", "strong", "code", "pre", "details", "summary", "bdi",
    "svg", "line", "text", "path", "circle",
}  # fmt: skip
LOADING = {"src", "href", "srcset", "action", "data", "style", "xlink:href", "background", "poster", "formaction"}


def test_a_good_home_in_three_forms(kai: Kai, home: Path) -> None:
    text = kai("audit")
    assert text.code == 0
    assert text.out.startswith("audit of all agents: all as it should be\n")
    assert re.search(r"^  ok +v1\.1\.0 .*, in force$", text.out, re.MULTILINE)
    document = kai("audit", "--json").document("audit")
    assert document["ok"]
    assert [it["version"] for it in document["agents"][0]["versions"]] == ["v1.0.0", "v1.1.0"]
    page = Page(kai("audit", "--html").out)
    assert "All is as it should be" in page.text
    assert document["agents"][0]["head"] in page.text
    assert document["agents"][0]["head"] in text.out


def test_what_differs_is_in_all_of_them_and_the_code_says_so(kai: Kai, hostile: Path) -> None:
    text = kai("audit")
    assert text.code == 1
    assert text.err == ""
    assert re.search(r"^  DIFFERS v2\.0\.0 ", text.out, re.MULTILINE)
    done = kai("audit", "bot@v2.0.0", "--json")
    assert done.code == 1
    document = done.document("audit")
    (version,) = document["agents"][0]["versions"]
    (finding,) = version["findings"]
    assert base64.b64decode(finding["path_b64"]) == os.fsencode(ODD)
    assert {finding["expected"], finding["found"]} <= set(re.findall("[0-9a-f]{64}", finding["problem"]))
    assert finding["expected"] in text.out
    page = kai("audit", "--html")
    assert page.code == 1
    assert "1 difference found" in Page(page.out).text
    assert finding["found"] in Page(page.out).text
    assert kai("audit", "bot@v1.0.0").code == 0


def test_nothing_in_a_name_a_note_a_reason_or_a_path_reaches_a_browser_or_a_terminal(kai: Kai, hostile: Path) -> None:
    done = kai("audit", "--html")
    page = Page(done.out)
    assert {tag for tag, _ in page.tags} <= KNOWN
    for tag, attributes in page.tags:
        assert not {name for name in attributes if name.startswith("on") or name in LOADING}, (tag, attributes)
    assert SCRIPT in page.text  # shown, as text
    assert "second line \\x07" in page.text
    for out in (done.out, kai("audit").out):
        assert not {char for char in out if not char.isprintable() and char != "\n"}
    assert kai("audit", "--json").out.isascii()


def test_the_page_allows_its_own_style_and_nothing_else(kai: Kai, hostile: Path) -> None:
    page = Page(kai("audit", "--html").out)
    (policy,) = (it["content"] for tag, it in page.tags if it.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert "@media print" in page.style


def test_the_drawing_has_a_dot_for_each_move(kai: Kai, home: Path) -> None:
    assert kai("rollback", "bot", "--to", "v1.0.0").code == 0
    assert kai("undo", "bot").code == 0
    page = Page(kai("audit", "--html").out)
    dots = [it["class"] for tag, it in page.tags if tag == "circle"]
    assert dots == ["move", "move", "undone", "move"]
    labels = page.text
    assert "v1.0.0" in labels
    for number in range(45):
        assert kai("rollback", "bot", "--to", f"v1.{number % 2}.0").code == 0
    page = Page(kai("audit", "--html").out)
    assert len([tag for tag, _ in page.tags if tag == "circle"]) == 40
    assert "The newest 40 of" in page.text


def test_the_same_home_clock_and_actor_give_the_same_bytes(kai: Kai, home: Path, monkeypatch: Any) -> None:
    class Stopped:
        def now_ns(self) -> int:
            return 1_790_000_000_000_000_000

    monkeypatch.setattr("kaivc.opening.SystemClock", Stopped)
    for options in (("--json",), ("--html",), ()):
        assert kai("audit", *options).out == kai("audit", *options).out


# ---------------------------------------------------------------- files


def test_the_file_has_the_form_that_was_asked_for_and_stdout_what_it_always_has(kai: Kai, hostile: Path) -> None:
    text = kai("audit", "bot", "--output", "report.txt")
    assert text.code == 1
    assert (hostile / "report.txt").read_text() == text.out
    done = kai("audit", "bot", "--json", "-o", "report.json")
    done.document("audit")
    assert (hostile / "report.json").read_text() == done.out
    done = kai("audit", "bot", "--html", "-o", "report.html")
    assert done.out.startswith("audit of bot: 1 difference")
    assert "1 difference found" in Page((hostile / "report.html").read_text()).text
    both = kai("audit", "bot", "--html", "--json", "-o", "report.html")
    both.document("audit")
    Page((hostile / "report.html").read_text())
    assert kai("audit", "bot", "--html", "-o", "-").out.startswith("<!doctype html>")
    assert sorted(path.name for path in hostile.iterdir()) == [
        ".kai", "bot", "report.html", "report.json", "report.txt",
    ]  # fmt: skip


def test_a_file_is_replaced_whole_even_if_it_is_a_link(kai: Kai, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("keep")
    (tmp_path / "report").symlink_to(target)
    assert kai("audit", "-o", str(tmp_path / "report")).code == 0
    assert target.read_text() == "keep"
    assert (tmp_path / "report").read_text().startswith("audit of")


def test_a_device_or_a_pipe_is_written_to_and_stays_what_it_is(kai: Kai, home: Path, tmp_path: Path) -> None:
    """As root, a report to /dev/null must not put a file in the place of /dev/null."""
    full = tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        full.open("wb").close()
    except PermissionError:
        pytest.skip("no device can be made, or opened, here")
    done = kai("audit", "-o", str(full))
    assert (done.code, done.out) == (11, "")
    assert stat.S_ISCHR(full.lstat().st_mode)
    (tmp_path / "link").symlink_to(full)
    assert kai("audit", "-o", str(tmp_path / "link")).code == 11
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = kai("audit", "-o", str(tmp_path / "pipe"))
        assert done.code == 0
        assert os.read(reader, 1 << 20).decode() == done.out
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_no_file_beside_the_report_is_touched(
    kai: Kai, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.new").write_text("keep")
    (tmp_path / "report").write_text("old")
    assert kai("audit", "-o", str(tmp_path / "report")).code == 0
    assert (tmp_path / "report.new").read_text() == "keep"
    there = sorted(tmp_path.iterdir())
    whole = (tmp_path / "report").read_bytes()

    def fail(*_: object) -> None:
        raise NoSpace("full")

    monkeypatch.setattr(Vfs, "sync", fail)
    assert kai("audit", "-o", str(tmp_path / "report")).code == 11
    assert sorted(tmp_path.iterdir()) == there
    assert (tmp_path / "report").read_bytes() == whole


def test_a_report_goes_where_a_link_to_a_directory_leads(kai: Kai, home: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "there").symlink_to("place")
    done = kai("audit", "-o", str(tmp_path / "there/report"))
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "place/report").read_text() == done.out


@pytest.mark.parametrize(
    "file",
    [".", "bot", "absent/report", ".kai/catalog.sqlite", ".kai/report", "bot/rollback.log", "bot/current/logic.py",
     "bot/versions/v1.0.0/logic.py"],
)  # fmt: skip
def test_what_a_report_must_not_replace_is_refused_before_the_work(kai: Kai, home: Path, file: str) -> None:
    before = (home / ".kai/catalog.sqlite").stat().st_ino
    done = kai("audit", "-o", file)
    assert (done.code, done.out) == (2, "")
    assert file in done.err
    assert (home / ".kai/catalog.sqlite").stat().st_ino == before
    assert kai("audit").code == 0


def test_a_workspace_may_hold_a_report(kai: Kai, home: Path) -> None:
    assert kai("audit", "-o", "bot/workspace/report.txt").code == 0
    assert (home / "bot/workspace/report.txt").exists()


# ---------------------------------------------------------------- the head that was kept


def test_the_head_that_was_kept(kai: Kai, home: Path) -> None:
    head = kai("audit", "--json").document("audit")["agents"][0]["head"]
    (home / "bot/workspace/logic.py").write_text("print('three')\n")
    assert kai("commit", "bot", "--bump", "minor").code == 0
    assert kai("audit", "bot", "--expect-head", head).code == 0
    number, digest = head.split(":")
    wrong = f"{number}:{digest[::-1]}"
    done = kai("audit", "bot", "--expect-head", wrong)
    assert done.code == 1
    assert "does not hold the head that was expected" in done.out
    assert digest in done.out
    document = kai("audit", "bot", "--expect-head", wrong, "--json").document("audit")
    assert document["expected_head"] == wrong
    assert document["agents"][0]["findings"][0]["seq"] == int(number)
    assert wrong in Page(kai("audit", "bot", "--expect-head", wrong, "--html").out).text


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("nobody",), 9, "E302"),
        (("bot@v9.9.9",), 9, "E303"),
        (("bot", "--expect-head", "abc"), 9, "E304"),
        (("--expect-head", "0" * 64), 2, "name the agent"),
        (("--html", "--json"), 2, "name a file"),
    ],
)
def test_what_cannot_be_asked(kai: Kai, home: Path, args: tuple[str, ...], code: int, said: str) -> None:
    done = kai("audit", *args)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
