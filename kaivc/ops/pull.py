"""Fetch, adopt versions that are not here, and follow the remote's ``current``."""

from __future__ import annotations

from kaivc import remotelist
from kaivc.names import check_op_id
from kaivc.remotes import connect
from kaivc.remotes.base import Context
from kaivc.remotes.following import Pulled, follow
from kaivc.repository import OpenHome

__all__ = ["Pulled", "pull"]


def pull(
    home: OpenHome,
    context: Context,
    remote: str,
    agent: str,
    *,
    reason: str = "",
    live: bool = False,
    op_id: str | None = None,
) -> Pulled:
    """Bring an agent here as the remote has it; one that is not here yet is made.

    ``current`` moves only if nobody moved it here since it was last fetched or pushed (Diverged otherwise), and moving
    it is a rollback in every respect. VersionConflict for numbers that are other versions here, once all else is done.
    """
    home.require_writable()
    check_op_id(op_id)
    found = remotelist.find(home, remote)
    far = connect(context, found.url)
    why = reason.strip() or f"pull from {remote}"
    try:
        return follow(home, far, remote, agent, why, live=live, op_id=op_id)
    finally:
        far.close()
