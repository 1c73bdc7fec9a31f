"""Take a role from a user of this machine."""

from __future__ import annotations

from kaivc import access
from kaivc.access import Rules, User
from kaivc.errors import InvalidName
from kaivc.names import nearest
from kaivc.repository import OpenHome
from kaivc.roles import Role, read_role


def role_revoke(home: OpenHome, who: str, role: str | None = None) -> tuple[User, ...]:
    """Take from the user of a login or a number one role, or all; what they were.

    The last role of all ends the rules: nobody is bound any more. Raises InvalidName, and PermissionDenied where others
    would be bound by rules that nobody may change.
    """
    wanted = None if role is None else read_role(role)
    taken: list[User] = []

    def become(rules: Rules) -> Rules:
        taken[:] = _those(rules, who, wanted)
        return access.require_an_admin(access.without_user(rules, taken[0].uid, wanted))

    access.change(home, become)
    return tuple(taken)


def _those(rules: Rules, who: str, role: Role | None) -> list[User]:
    found = [it for it in rules.users if who in (it.name, str(it.uid)) and role in (None, it.grant.role)]
    if found:
        return [it for it in found if it.uid == found[0].uid]
    close = nearest(who[:100], [it.name for it in rules.users])
    what = f"{who!r:.100} has no role here" if role is None else f"{who!r:.100} is no {role} here"
    hint = f"did you mean {', '.join(close)}?" if close else "`kai role list` shows who has which"
    raise InvalidName(what, unchanged="nothing was taken", hint=hint, nearest=close)
