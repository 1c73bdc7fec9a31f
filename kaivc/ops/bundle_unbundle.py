"""Take in what a bundle holds."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kaivc.errors import Diverged, ForkedLog, NoSuchAgent
from kaivc.records import dataclass
from kaivc.remotes.base import Context
from kaivc.remotes.bundle import connect
from kaivc.remotes.following import Pulled, follow
from kaivc.remotes.tracking import require_format
from kaivc.repository import OpenHome

NAME = "bundle-"
SHORT = 12


@dataclass(frozen=True)
class Unbundled:
    """What was taken in, agent by agent; ``remote`` is what its refs are noted under."""

    path: str
    remote: str
    agents: tuple[Pulled, ...]


def bundle_unbundle(
    home: OpenHome, context: Context, path: str, agents: Sequence[str] = (), *, reason: str = "", live: bool = False
) -> Unbundled:
    """Take in some agents of a bundle, or all, as a pull from the home that it was made of would.

    Bundles of one home are told from those of another: where it stood last is noted under a name with its id.
    """
    home.require_writable()
    whole = os.path.abspath(path)
    far = connect(context, whole)
    try:
        there = far.agents()
        for name in agents:
            if name not in there:
                raise NoSuchAgent(
                    f"there is no agent {name!r:.100} in {whole}",
                    unchanged="nothing moved",
                    hint=f"it holds: {', '.join(there)}",
                    name=name[:100],
                )
        require_format(home, far, whole)
        remote = NAME + far.home[:SHORT]
        why = reason.strip() or f"from the bundle {os.path.basename(whole)}"
        done = tuple(follow(home, far, remote, name, why, live=live) for name in (agents or there))
    except ForkedLog as error:  # what it was seen as is noted under no name that could be removed
        error.hint = (
            "is it older than a bundle that was taken in, or was its home put back? Ask who made it; "
            "`kai remote add NAME FILE` and `kai pull AGENT NAME` take what it says now"
        )
        raise
    except Diverged as error:  # nothing can be pushed into a bundle
        error.hint = error.hint.partition(", or `kai push")[0] + ", or `kai bundle create` takes yours there"
        raise
    finally:
        far.close()
    return Unbundled(whole, remote, done)
