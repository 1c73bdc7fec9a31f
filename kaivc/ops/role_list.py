"""List the roles of users of this machine."""

from __future__ import annotations

from kaivc import access
from kaivc.access import User
from kaivc.repository import OpenHome


def role_list(home: OpenHome) -> tuple[User, ...]:
    """What users of this machine were granted, by uid; nothing where no rule binds anybody."""
    return access.read(home.layout).users
