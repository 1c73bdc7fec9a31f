"""The file that a transfer arrives in: taken up again, removed when nobody does, and what differs in how it is cut."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from kaivc.errors import LockTimeout
from kaivc.incoming import Incoming
from kaivc.wire import Offer
from tests.engine.homes import commit, make_home, open_home, read, write
from tests.remotes.carriers import by_path

OFFER = Offer("ab" * 32, 1, 1000)


def test_what_was_cut_is_kept_for_a_week(tmp_path: Path) -> None:
    with closing(make_home(tmp_path / "home")) as home:
        commit(home.new("bot"), {"a": b"1"})
        for name in ("bot", "never-made"):
            with Incoming(home.opened, name, OFFER) as arriving:
                arriving.take([b"x" * 100])
        paths = sorted(tmp_path.glob("home/.kai/incoming/*/*.parcel"))
        assert len(paths) == 2
        home.agent("bot").gc()
        assert all(path.exists() for path in paths)
        with Incoming(home.opened, "bot", OFFER) as arriving:
            assert arriving.size == 100
            old = time.time() - 8 * 86_400
            for path in paths:
                os.utime(path, (old, old))
            home.agent("bot").gc()
            assert [path.parent.name for path in paths if path.exists()] == ["bot"], "somebody goes on with it just now"
        os.utime(paths[0], (old, old))
        home.agent("bot").gc()
        assert not any(path.exists() for path in paths)


def test_a_file_that_lands_while_it_is_opened_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One opens it, another lands and removes it, and only then the first has the lock: of a file without a name."""
    with closing(make_home(tmp_path / "home")) as home:
        other = Incoming(home.opened, "bot", OFFER)
        other.__enter__()
        real = home.opened.vfs.flock
        calls: list[int] = []

        def flock(fd: int, **words: bool) -> None:
            if not calls:
                other.discard()
                other.__exit__()
            calls.append(fd)
            real(fd, **words)

        monkeypatch.setattr(home.opened.vfs, "flock", flock)
        with Incoming(home.opened, "bot", OFFER) as arriving:
            arriving.take([b"x"])
            assert Path(arriving.path).read_bytes() == b"x"
        assert len(calls) == 2


def test_one_at_a_time(tmp_path: Path) -> None:
    with closing(make_home(tmp_path / "home", lock__wait="100ms")) as home, Incoming(home.opened, "bot", OFFER):
        with pytest.raises(LockTimeout), Incoming(home.opened, "bot", OFFER):
            pass
        with Incoming(home.opened, "bot", OFFER, "another"):
            pass


def test_who_comes_while_another_is_about_to_be_done_waits(tmp_path: Path) -> None:
    """A push that is stopped and begun again: the other end may be at work on the first still."""
    with closing(make_home(tmp_path / "home", lock__wait="20s")) as home:
        first = Incoming(home.opened, "bot", OFFER).__enter__()
        first.take([b"x"])
        done = threading.Timer(0.3, first.__exit__)
        done.start()
        with Incoming(home.opened, "bot", OFFER) as second:
            assert second.size == 1
        done.join()


def test_what_cannot_be_removed_does_not_undo_what_landed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kaivc.errors import StorageFailed

    with closing(make_home(tmp_path / "home")) as home, Incoming(home.opened, "bot", OFFER) as arriving:

        def unlink(*_: object, **__: object) -> None:
            raise StorageFailed("no", hint="no")

        with monkeypatch.context() as patch:
            patch.setattr(home.opened.vfs, "unlink", unlink)
            arriving.discard()
        assert os.path.exists(arriving.path)
        arriving.discard()
        assert not os.path.exists(arriving.path)


@pytest.mark.parametrize(("here", "there"), [("64KiB", "16MiB"), ("16MiB", "64KiB")])
def test_homes_that_cut_files_in_other_ways(here: str, there: str, tmp_path: Path) -> None:
    """What one has as a record the other has in pieces: what is missing is then more than what is new."""
    chance = random.Random(3)
    data = chance.randbytes(700_000)
    with closing(make_home(tmp_path / "far", chunks__threshold=there)) as far, by_path(tmp_path / "far") as link:
        commit(far.new("bot"), {"a": b"1"})
        link.flags["chunks.threshold"] = here
        with closing(link.clone(tmp_path / "near")) as near:
            far_bot, near_bot = far.agent("bot"), near.agent("bot")
            # Both sides store the same content, each as it does.
            commit(far_bot, {"a": b"1", "large": data}, version="2.0.0")
            write(near_bot.workspace, {"a": b"1", "large": data})
            near_bot.commit(version="3.0.0")
            near_bot.rollback("v1.0.0")
            near.pull("bot")
            assert read(near_bot.workspace)["large"] == data
            data = data[:300_000] + b"edited" + data[300_000:]
            commit(far_bot, {"a": b"1", "large": data}, version="4.0.0")
            near.pull("bot")
            assert read(near_bot.workspace)["large"] == data
            data = data[:100_000] + b"edited here" + data[100_000:]
            commit(near_bot, {"a": b"1", "large": data}, version="5.0.0")
            near.push("bot")
        with closing(open_home(tmp_path / "near")) as near:
            assert near.fsck().ok
        with closing(open_home(tmp_path / "far")) as again:
            assert read(again.agent("bot").workspace)["large"] == data
            found = again.fsck()
            assert found.ok, found.all
    assert not list(tmp_path.glob("*/.kai/incoming/*/*"))
