"""What is left behind between runs: no room, but the inodes."""

import os
from pathlib import Path

import pytest

from scripts.bench import disk, folders


def test_what_is_done_with_gives_its_room_back_and_keeps_its_inodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "SPARE_BYTES", 0)
    monkeypatch.setattr(disk, "SPARE_FILES", 0)
    for name, size in (("small", 100), ("large", 1 << 20)):
        (tmp_path / name).write_bytes(b"x" * size)
        (tmp_path / name).chmod(0o400)
    (tmp_path / "link").symlink_to("large")
    disk.retire(str(tmp_path))
    assert {name: (tmp_path / name).lstat().st_size for name in os.listdir(tmp_path)} == {
        "small": 100,
        "large": 0,
        "link": 5,
    }
    monkeypatch.setattr(disk, "SPARE_BYTES", 1 << 62)
    disk.retire(str(tmp_path))
    assert not tmp_path.exists()


def test_a_new_file_has_a_price_and_directories_may_be_spread_anywhere(tmp_path: Path) -> None:
    disk.spread(str(tmp_path))
    disk.spread("/proc")  # knows no flags
    assert disk.creation(str(tmp_path)) > 0
    assert len(list(folders.files(str(tmp_path)))) == disk.PROBES
