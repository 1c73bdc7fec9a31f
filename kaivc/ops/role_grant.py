"""Give a user of this machine a role."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence

from kaivc import access
from kaivc.access import Rules, User
from kaivc.errors import InvalidName
from kaivc.names import nearest
from kaivc.records import dataclass
from kaivc.repository import OpenHome
from kaivc.roles import ALL, Act, Grant, Role

MAX_UID = 2**32 - 2
MAX_DIGITS = 10


@dataclass(frozen=True)
class Granted:
    """What was granted. ``kept`` is whoever got the first rule, and so stays an admin over all agents, or None."""

    user: User
    kept: User | None


def role_grant(home: OpenHome, who: str, role: str, agents: Sequence[str] = ()) -> Granted:
    """Give the user of a login or a number a role over the agents that fit ``agents`` (all, for none).

    The first grant in a home binds everybody from then on; so that somebody can take it back, whoever makes it is made
    an admin over all agents with it. One of the same role is replaced, by who could grant that. Raises InvalidName,
    PermissionDenied; nothing was granted then.
    """
    user = User(*_user(who), access.grant_of(role, agents))
    mine = os.geteuid()
    me = User(mine, _login(mine), Grant(Role.ADMIN, (ALL,)))
    kept: list[User] = []

    def become(rules: Rules) -> Rules:
        for pattern in access.replaced_by(rules, user):
            access.UserAccess(home).require_act(pattern, Act.GRANT)
        after = access.with_user(rules, user)
        if not rules.users and not after.powers(mine).may("grant", ALL):
            kept.append(me)
            after = access.with_user(after, me)
        return access.require_an_admin(after)

    access.change(home, become)
    return Granted(user, kept[0] if kept else None)


def _user(who: str) -> tuple[int, str]:
    if who.isascii() and who.isdigit() and len(who) <= MAX_DIGITS and int(who) <= MAX_UID:
        return int(who), _login(int(who))
    try:
        return pwd.getpwnam(who).pw_uid, who
    except (KeyError, ValueError) as error:
        close = nearest(who[:100], [it.pw_name for it in pwd.getpwall()])
        hint = f"did you mean {', '.join(close)}?" if close else "use a login of this machine, or a uid"
        raise InvalidName(
            f"there is no user {who!r:.100}", unchanged="nothing was granted", hint=hint, nearest=close
        ) from error


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
