"""The grammar of revisions, without a home: what each text means, and that no text is more than refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import InvalidName
from kaivc.names import Version
from kaivc.revisions import (
    Ancestor,
    Backup,
    Current,
    Digits,
    Entry,
    Fits,
    Moment,
    Numbered,
    Revision,
    Snapshot,
    parse,
    split,
)

NOON = 1_793_534_400
"""2026-11-01T12:00:00Z"""


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("current", Current()),
        ("v1.2.0", Numbered(Version(1, 2, 0))),
        ("1.2.0", Numbered(Version(1, 2, 0))),
        ("@1.2.0-rc.1", Numbered(Version(1, 2, 0, "rc.1"))),
        ("^1", Fits((1,))),
        ("^v1.2", Fits((1, 2))),
        ("^0.0.3-a", Fits((0, 0, 3), "a")),
        ("~", Ancestor(Current(), 1)),
        ("current~2", Ancestor(Current(), 2)),
        ("v1.2.0~1~2~", Ancestor(Numbered(Version(1, 2, 0)), 4)),
        ("^1~0", Ancestor(Fits((1,)), 0)),
        ("@{1}~2", Ancestor(Entry(1), 2)),
        ("{1}", Entry(1)),
        ("@{0}", Entry(0)),
        ("current@{12}", Entry(12)),
        ("@{2026-11-01}", Moment(NOON - 12 * 3600)),
        ("{2026-11-01T12:00Z}", Moment(NOON)),
        ("@{2026-11-01t12:00:00z}", Moment(NOON)),
        ("@{2026-11-01 14:30:00+02:30}", Moment(NOON)),
        ("@{2026-11-01T07:00-05:00}", Moment(NOON)),
        ("@{2026-11-01T12:00:00.25Z}", Moment(NOON, 250_000_000)),
        ("@{2026-11-01T12:00:00.1234567891Z}", Moment(NOON, 123_456_789)),
        ("@{2026-11-01T11:59:60Z}", Moment(NOON)),
        ("@{20261101}", None),
        ("0f3c", Digits("0f3c")),
        ("0F3C9A", Digits("0f3c9a")),
        ("1234", Digits("1234")),
        ("e" * 64, Digits("e" * 64)),
        ("backups/7", Backup(7)),
        ("snapshots/try-1", Snapshot("try-1")),
    ],
)
def test_what_a_text_means(text: str, meant: Revision | None) -> None:
    assert parse(text) == (meant or Entry(20261101))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "@",
            "@@v1.0.0",
            "v1",
            "1.2",
            "v1.2.3.4",
            "v01.2.3",
            "1.2.3+x",
            "^",
            "^1.2.x",
            "^01",
            "^^1",
            "0f3",
            "0f3g",
        ),
        *("e" * 65, "currently", "Current", "current~x", "current~-1", "current~9999999999", "current^", "v1.0.0~1x"),
        *("@{}", "@{-1}", "@{x}", "@{2026-11}", "@{2026-02-30}", "@{2026-11-01T12:00}", "@{2026-11-01T24:00Z}"),
        *("@{2026-11-01T12:60Z}", "@{2026-11-01T12:00:61Z}", "@{2026-11-01T12:00+24:00}", "@{2026-11-01T12Z}"),
        *("@{0000-01-01}", "@{0001-01-01T00:00+01:00}", "@{9999-12-31T23:59:60Z}", "@{1", "{1}}", "v1.0.0@{1}"),
        *("backups/", "backups/07", "backups/x", "backups/7/8", "backups/\N{ARABIC-INDIC DIGIT SEVEN}", "snapshots/"),
        *("snapshots/../x", "snapshots/A", "other/7", "v1.0.0\n", "\0", "\udcff", "current\N{DIGIT ONE}", "~" * 300),
        "\N{FULLWIDTH DIGIT ONE}.2.3",
    ],
)
def test_what_is_no_revision_shows_the_grammar(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse(text)
    assert "^1.2" in caught.value.hint
    assert "snapshots/ID" in caught.value.hint


@given(st.text() | st.text(alphabet="@{}~^/.-:0123456789TZabcefknoprstuv+\ud800", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except InvalidName:
        return
    assert parse(str(found)) == found


PARTS = st.integers(0, 3)
VERSIONS = st.builds(Version, PARTS, PARTS, PARTS, st.sampled_from(["", "", "a", "a.1", "rc.2"]))


def as_npm_says(parts: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The range as npm's documentation spells it out: from the first number to the one that is excluded."""
    match (*parts, *[None] * (3 - len(parts))):
        case (0, 0, None):
            return (0, 0, 0), (0, 1, 0)
        case (0, 0, int(patch)):
            return (0, 0, patch), (0, 0, patch + 1)
        case (0, int(minor), patch):
            return (0, minor, patch or 0), (0, minor + 1, 0)
        case (major, minor, patch):
            return (major or 0, minor or 0, patch or 0), ((major or 0) + 1, 0, 0)
    raise AssertionError


@given(st.lists(PARTS, min_size=1, max_size=3).map(tuple), VERSIONS)
def test_a_caret_takes_what_npm_takes(parts: tuple[int, ...], version: Version) -> None:
    low, high = as_npm_says(parts)
    number = (version.major, version.minor, version.patch)
    assert Fits(parts).takes(version) == (not version.pre and low <= number < high)


@pytest.mark.parametrize(
    ("caret", "version", "taken"),
    [
        ("^1.2.3-rc.1", "1.2.3-rc.1", True),
        ("^1.2.3-rc.1", "1.2.3-rc.2", True),
        ("^1.2.3-rc.1", "1.2.3-beta", False),
        ("^1.2.3-rc.1", "1.2.3", True),
        ("^1.2.3-rc.1", "1.3.0", True),
        ("^1.2.3-rc.1", "1.2.4-rc.1", False),
        ("^1.2.3-rc.1", "2.0.0-rc.1", False),
        ("^1.2", "1.3.0-rc.1", False),
        ("^0.2.3", "0.3.0", False),
        ("^0.0.3", "0.0.3", True),
        ("^0.0.3", "0.0.4", False),
    ],
)
def test_pre_releases_count_only_where_they_are_named(caret: str, version: str, taken: bool) -> None:
    found = parse(caret)
    assert isinstance(found, Fits)
    assert found.takes(Version.parse(version)) is taken


def test_an_agent_and_its_revision_are_told_apart_at_the_first_sign() -> None:
    assert split("bot") == ("bot", None)
    assert split("bot@v1.0.0") == ("bot", "v1.0.0")
    assert split("bot@current@{1}") == ("bot", "current@{1}")
    assert split("bot@@{1}") == ("bot", "@{1}")
    for text in ("", "@v1.0.0", "bot@"):
        with pytest.raises(InvalidName):
            split(text)
