"""The systems that are measured, by name, kaivc first."""

from __future__ import annotations

import importlib

from scripts.bench.systems.base import System

_PLACES = {
    "kai": "kai:Kai",
    "git": "git:Git",
    "git-tuned": "git:GitTuned",
    "git-synced": "git:GitSynced",
    "pygit2": "libraries:Pygit2",
    "dulwich": "libraries:Dulwich",
    "restic": "archives:Restic",
    "borg": "archives:Borg",
    "bup": "archives:Bup",
    "casync": "archives:Casync",
    "ostree": "archives:Ostree",
    "git-lfs": "git:GitLfs",
    "dvc": "datasets:Dvc",
    "oxen": "datasets:Oxen",
}
NAMES = tuple(_PLACES)


def kind(name: str) -> type[System]:
    """The class of a system; its module is imported only now: each runs in a process of its own."""
    module, _, cls = _PLACES[name].partition(":")
    found: type[System] = getattr(importlib.import_module(f"scripts.bench.systems.{module}"), cls)
    return found
