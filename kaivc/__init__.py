"""kaivc: versions of AI agents, with code, configuration, live state and dependencies together.

Glossary
--------
home        a folder of agents with one catalog
agent       a repository: objects, refs and a workspace
blob, tree, commit, tag
            git's objects, byte for byte
version     a commit that an annotated tag names, numbered by semver
current     the movable ref of the version in force
reflog      every move of every ref, with who, when and why
workspace   the live directory of an agent
view        the read-only directory of a version
backup      a commit of a workspace that was about to be replaced
pack        an append-only file of records
chunk       a piece of a large blob, cut where its content says
catalog     the SQLite file that says where everything is
seal        how an inode of a view looked when its bytes were known
intent      something that is still to be done after a transaction
lease       what a running agent holds
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kaivc.api import Agent, Home, doctor, init, open  # noqa: A004 - kaivc.open reads as git.open would

__version__ = "0.1.0"
__all__ = ["Agent", "Home", "__version__", "doctor", "init", "open"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from kaivc import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
