"""Make a home."""

from __future__ import annotations

import os
import secrets

from kaivc.errors import HomeExists, InvalidSettings, RefusedWorkspace, StorageFailed
from kaivc.layout import Layout, find_home
from kaivc.records import dataclass
from kaivc.storage import homefile
from kaivc.storage.catalog import Catalog
from kaivc.storage.gitobjects import FORMATS
from kaivc.storage.homefile import HomeFacts
from kaivc.vfs import Vfs

CONFIG = b"""\
# Settings of this home, and their defaults. Take the # off a line to change it.
# lock:
#   wait: 5s
# limits:
#   max_file: 16 GiB
#   max_files: 1000000
# views:
#   keep: 10
#   max_bytes: 1 GiB
"""


@dataclass(frozen=True)
class HomeMade:
    """A new home."""

    path: str
    object_format: str
    home_id: str
    shared: bool


def init(vfs: Vfs, path: str, *, object_format: str = "sha256", shared: bool = False) -> HomeMade:
    """Make a home at ``path``: wholly or not at all. HomeExists, RefusedWorkspace or InvalidSettings otherwise."""
    layout = Layout(os.path.abspath(path))
    if object_format not in FORMATS:
        raise InvalidSettings(f"{object_format!r} is no object format", hint=f"use one of {', '.join(FORMATS)}")
    above = find_home(layout.root)
    if above == layout.root:
        raise HomeExists(f"{layout.root} is a home already", unchanged="nothing was written", path=layout.root)
    if above is not None:
        raise RefusedWorkspace(f"{layout.root} lies in the home {above}", unchanged="nothing was written", path=above)
    vfs.make_dirs(layout.root, 0o777)
    vfs.group = shared
    made = HomeMade(layout.root, object_format, secrets.token_hex(16), shared)
    temporary = Layout(os.path.join(layout.root, f".kai-new-{secrets.token_hex(4)}"))
    _fill(vfs, temporary, made)
    try:
        vfs.rename(temporary.kai, layout.kai)
    except StorageFailed as error:
        if os.path.isdir(layout.kai):
            raise HomeExists(f"{layout.root} is a home already", unchanged="nothing was written") from error
        raise
    finally:
        vfs.remove_tree(temporary.root)
    vfs.sync_dir(layout.root)
    return made


def _fill(vfs: Vfs, layout: Layout, made: HomeMade) -> None:
    for directory in (layout.root, layout.kai, layout.packs, layout.locks, layout.tmp):
        vfs.make_dir(directory, 0o770 if made.shared else 0o700)
    vfs.replace(layout.config, CONFIG, 0o660 if made.shared else 0o600)
    facts = HomeFacts(made.home_id, made.object_format, made.shared)
    homefile.write(vfs, layout.home_file, facts)
    Catalog.create(layout.catalog, facts.meta()).close()
    if made.shared:
        vfs.share(layout.catalog)
    vfs.sync_dir(layout.kai)
