"""Who may do what. The one question that both doors ask before a verb that writes."""

from __future__ import annotations

import os

from kaivc.repository import OpenHome


def authorize(home: OpenHome, act: str, *agents: str) -> None:
    """Raise PermissionDenied unless this process may do it to each of these agents; one may be the pattern ``*``.

    ``act`` is one of ``roles.Act``.

    Without rules (`kai role`) that say otherwise the home's owner may, root, and in a home that is shared with a group
    whoever is in it. Who asks is the uid that the system gives, not the name that goes into the log. A denial is noted
    in ``.kai/log``.
    """
    if not os.path.lexists(home.layout.access) and os.geteuid() in (0, os.stat(home.layout.kai).st_uid):
        return
    from kaivc.access import UserAccess  # noqa: PLC0415 - only who is bound by rules needs them
    from kaivc.roles import Act  # noqa: PLC0415 - as above

    user = UserAccess(home)
    for agent in agents:
        user.require_act(agent, Act(act))
