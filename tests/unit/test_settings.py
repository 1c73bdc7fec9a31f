"""What can be set, and how layers are merged."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaivc.errors import InvalidSettings
from kaivc.fields import DAY, GIB, KIB, MIB
from kaivc.names import Actor
from kaivc.sandboxes.base import Limits
from kaivc.settings import (
    LIMITS,
    READERS,
    Isolation,
    Layer,
    Local,
    SecretFile,
    SecretVariable,
    Settings,
    parse,
    parse_flags,
    parse_local,
)

FULL = b"""\
lock: {wait: 10s}
limits:
  max_file: 1 GiB
  max_files: 5000
views: {keep: 3, max_bytes: 512 MiB}
backups: {keep: 4, max_age: 2 weeks, max_bytes: 0}
verify: {full_every: 24h}
packs: {seal_at: 1 MiB}
chunks: {threshold: 256 KiB}
read: {tries: 5}
compress: {level: 3}
author: Ada <ada@example.org>
head: summarizer
isolation:
  require: partial
  env: [LANG]
  memory: 512 MiB
  processes: 64
  open_files: 256
  written: 1 GiB
  inodes: 5000
  output: 1 MiB
  time: 90s
"""


def refusal(text, read=parse):
    with pytest.raises(InvalidSettings) as caught:
        read(text.encode(), "config.yaml")
    assert caught.value.what.startswith(f"config.yaml:{caught.value.facts['line']}: ")
    return caught.value


def read_or_refuse(read):
    """Run a reader that may refuse, without control characters, and do nothing else."""
    try:
        read()
    except InvalidSettings as caught:
        error = caught
    else:
        return
    assert error.what.isprintable()


def test_the_defaults():
    assert Settings.layered() == Settings()
    assert Settings().lock_wait == 5
    assert Settings().limits_max_file == 16 * GIB
    assert Settings().limits_max_files == 1_000_000
    assert Settings().backups_max_age == 30 * DAY
    assert Settings().isolation.temp_dir == "/tmp/kai_snapshots"


def test_reads_every_key():
    assert Settings.layered(parse(FULL, "config.yaml")) == Settings(
        lock_wait=10,
        limits_max_file=GIB,
        limits_max_files=5000,
        views_keep=3,
        views_max_bytes=512 * MIB,
        backups_keep=4,
        backups_max_age=14 * DAY,
        backups_max_bytes=0,
        verify_full_every=DAY,
        packs_seal_at=MIB,
        chunks_threshold=256 * KIB,
        read_tries=5,
        compress_level=3,
        author=Actor("Ada", "ada@example.org"),
        head="summarizer",
        isolation=Isolation(
            require="partial",
            env=("LANG",),
            memory=512 * MIB,
            processes=64,
            open_files=256,
            written=GIB,
            inodes=5000,
            output=MIB,
            time=90,
        ),
    )


def test_every_setting_can_be_read_and_every_key_is_a_setting():
    names = {key.replace(".", "_") for key in READERS} | {"isolation"}
    assert names == {each.name for each in dataclasses.fields(Settings)}


def test_every_default_is_within_its_own_bounds():
    for key in READERS:
        value = getattr(Settings(), key.replace(".", "_"))
        if value is not None:
            assert parse_flags({key: str(value)}).values == {key.replace(".", "_"): value}


def test_the_nearer_layer_wins_key_by_key():
    user = parse(b"lock: {wait: 1}\nviews: {keep: 1}\nisolation: {env: [A], require: partial}", "user")
    home = parse(b"views: {keep: 2}\nisolation: {env: [B]}", "home")
    flags = parse_flags({"read.tries": "9"})
    merged = Settings.layered(user, home, flags)
    assert (merged.lock_wait, merged.views_keep, merged.read_tries) == (1, 2, 9)
    assert merged.isolation == Isolation(env=("B",), require="partial")
    assert merged.isolation.given == {"env", "require"}


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"lock:\nviews: {}\n"])
def test_nothing_said_changes_nothing(data):
    assert parse(data, "x") == Layer("x")


def test_flags_are_read_as_a_text_is():
    layer = parse_flags({"lock.wait": "250 ms", "views.keep": "7", "isolation.enable": "false", "head": "one"})
    assert layer.values == {"lock_wait": 0.25, "views_keep": 7, "head": "one"}
    assert layer.isolation == Isolation(enable=False)
    assert layer.source == "command line"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"lock.wate": "1"}, "command line: unknown key lock.wate"),
        ({"lok.wait": "1"}, "command line: unknown key lok"),
        ({"lock.wait.long": "1"}, "command line: unknown key lock.wait"),
        ({"lock": "1"}, "command line: lock must be a mapping"),
        ({"lock.wait": "1", "lock": "1"}, "command line: lock must be a mapping"),
        ({"lock": "1", "lock.wait": "1"}, "command line: lock must be a mapping"),
        ({"views.keep": "9" * 30}, "command line: views.keep must be a whole number"),
        ({"": "1"}, "command line: unknown key"),
    ],
)
def test_a_wrong_flag_is_named(flags, words):
    with pytest.raises(InvalidSettings) as caught:
        parse_flags(flags)
    assert caught.value.what.startswith(words)
    assert "line" not in caught.value.facts


@pytest.mark.parametrize(
    ("text", "line", "words", "hint"),
    [
        ("lock:\n  wiat: 1", 2, "unknown key lock.wiat", "'wait'"),
        ("view: {}", 1, "unknown key view", "'views'"),
        ("lock.wait: 5", 1, "unknown key lock.wait", ""),
        ("lock: 5", 1, "lock must be a mapping", ""),
        ("lock: {wait: soon}", 1, "lock.wait must be a time", "min"),
        ("lock: {wait: -1}", 1, "lock.wait must be from 0", ""),
        ("limits: {max_files: 0}", 1, "must be from 1 to 1,000,000,000", ""),
        ("limits: {max_file: 16 G}", 1, "must be a size", "GiB"),
        ("compress: {level: 20}", 1, "must be from 1 to 19", ""),
        ("compress: {level: true}", 1, "must be a whole number", ""),
        ("author: Ada", 1, "author is refused: 'Ada' is not an author", "mail"),
        ("author: 5", 1, "author must be text", ""),
        ("head: 'No Name'", 1, "head is refused", "a-z"),
        ("isolation: {enabled: true}", 1, "unknown key isolation.enabled", "'enable'"),
        ("a: [", 1, "expected", ""),
    ],
)
def test_refuses_with_file_and_line(text, line, words, hint):
    error = refusal(text)
    assert error.facts["line"] == line
    assert words in error.what
    assert hint in error.hint


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(data):
    for read in (parse, parse_local):
        read_or_refuse(lambda read=read: read(data, "x"))


@given(st.dictionaries(st.sampled_from([*READERS, "isolation.env", "x", "a.b"]), st.text(max_size=12), max_size=4))
def test_any_flags_are_read_or_refused(flags):
    read_or_refuse(lambda: Settings.layered(parse_flags(flags)))


# ---------------------------------------------------------------- isolation


def test_what_is_given_is_laid_over_the_base():
    base = Isolation(temp_dir="/var/tmp", env=("A",), given=frozenset({"temp_dir", "env"}))
    nearer = Isolation(enable=True, env=("B",), given=frozenset({"enable", "env"}))
    merged = nearer.over(base)
    assert merged == Isolation(temp_dir="/var/tmp", env=("B",))
    assert merged.given == {"temp_dir", "env", "enable"}


@pytest.mark.parametrize(
    ("base", "said", "loosened"),
    [
        ({}, {"enable": False}, ("enable",)),
        ({}, {"commit_changes": True}, ("commit_changes",)),
        ({}, {"require": "partial"}, ("require",)),
        ({}, {"env": ["A"]}, ("env",)),
        ({}, {"rollback_on_error": False, "temp_dir": "/x", "enable": True, "require": "full"}, ()),
        ({"enable": False}, {"enable": False}, ()),
        ({"enable": False}, {"enable": True}, ()),
        ({"require": "partial"}, {"require": "partial"}, ()),
        ({"require": "partial"}, {}, ()),
        ({"commit_changes": True}, {"commit_changes": True}, ()),
        ({"env": ["A", "B"]}, {"env": ["B"]}, ()),
        ({"env": ["A"]}, {"env": ["A", "B"]}, ("env",)),
        ({}, {"memory": "1 GiB", "time": "9 min", "processes": 1, "written": 0, "output": 0, "inodes": 0}, ()),
        ({}, {"memory": "2049 MiB"}, ("memory",)),
        ({}, {"processes": 257, "open_files": 1025}, ("processes", "open_files")),
        ({}, {"written": "5 GiB", "inodes": 100001, "output": "17 MiB"}, ("written", "inodes", "output")),
        ({}, {"time": "11 min"}, ("time",)),
        ({"time": "1h"}, {"time": "11 min"}, ()),
        ({"time": "1 min"}, {"time": "2 min"}, ("time",)),
    ],
)
def test_names_the_keys_that_isolate_less(base, said, loosened):
    granted, manifest = (parse(json.dumps({"isolation": keys}).encode(), "x").isolation for keys in (base, said))
    assert manifest.loosens(granted) == loosened


def test_limits_have_the_names_that_a_sandbox_gives_them():
    limits = Limits(**parse(b"isolation: {time: 1 min, memory: 64 MiB}", "x").isolation.limits)
    assert (limits.seconds, limits.memory) == (60, 64 * MIB)
    assert Limits(**Isolation().limits) == Limits(
        memory=2 * GIB,
        processes=256,
        open_files=1024,
        written=4 * GIB,
        inodes=100_000,
        output=16 * MIB,
        seconds=600,
    )


def test_every_default_limit_is_within_its_own_bounds():
    for key in LIMITS:
        layer = parse_flags({f"isolation.{key}": str(getattr(Isolation(), key))})
        assert layer.isolation == Isolation()
        assert layer.isolation.given == {key}


# ---------------------------------------------------------------- local


def test_reads_what_belongs_to_this_machine():
    local = parse_local(
        b"workspaces:\n  summarizer: /srv/agents/one\n"
        b"secrets:\n  API_TOKEN: {file: /run/secrets/token}\n  KEY:\n    env: MY_KEY\n",
        "local.yaml",
    )
    assert local.workspaces == {"summarizer": "/srv/agents/one"}
    assert local.secrets == {"API_TOKEN": SecretFile("/run/secrets/token"), "KEY": SecretVariable("MY_KEY")}


@pytest.mark.parametrize("data", [b"", b"workspaces:\n", b"secrets: {}\n"])
def test_an_empty_local_is_the_default(data):
    assert parse_local(data, "local.yaml") == Local()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("workspace: {}", 1, "unknown key workspace"),
        ("workspaces: {a: relative}", 1, "workspaces.a must be an absolute path"),
        ("workspaces: {a: /x/../y}", 1, "absolute path without '..'"),
        ("workspaces:\n  a: /x\n  A B: /y", 3, "is refused: 'A B' is not a valid agent name"),
        ("workspaces: [a]", 1, "must be a mapping"),
        ("secrets:\n  lower: {env: X}", 2, "must be the name of a secret, not 'lower'"),
        ("secrets: {A: {}}", 1, "must have one of"),
        ("secrets: {A: {file: /x, env: X}}", 1, "must have one of"),
        ("secrets: {A: {file: x}}", 1, "secrets.A.file must be an absolute path"),
        ("secrets: {A: {env: 'X Y'}}", 1, "secrets.A.env must be the name of an environment variable"),
        ("secrets: {A: {value: hunter2}}", 1, "unknown key secrets.A.value"),
        ("secrets: {A: hunter2}", 1, "must be a mapping with 'file' or 'env'"),
    ],
)
def test_refuses_a_local_with_file_and_line(text, line, words):
    error = refusal(text, parse_local)
    assert error.facts["line"] == line
    assert words in error.what
    assert "hunter2" not in error.what
