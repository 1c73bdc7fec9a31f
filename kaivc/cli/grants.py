"""Roles and whom they are over, as commands take and show them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaivc.cli import render
from kaivc.cli.arguments import Option

if TYPE_CHECKING:
    from kaivc.access import Token, User
    from kaivc.roles import Grant

ROLE = Option("--role", metavar="ROLE", help="viewer, tester, operator, maintainer or admin.")
AGENTS = Option("--agents", metavar="PATTERN", help="Over these, as `billing-*`; all unless said. May be repeated.")


def over(grant: Grant) -> str:
    """The agents, for people."""
    return "all agents" if "*" in grant.agents else ", ".join(grant.agents)


def token_document(it: Token) -> render.Document:
    """A token without its text, which nobody has."""
    return {
        "id": it.id,
        "name": it.name,
        "role": str(it.grant.role),
        "agents": list(it.grant.agents),
        "actor": it.actor,
        "created": render.rfc3339(it.created_ns),
        "expires": None if it.expires_ns is None else render.rfc3339(it.expires_ns),
    }


def user_document(it: User) -> render.Document:
    """What a user has."""
    return {"uid": it.uid, "user": it.name, "role": str(it.grant.role), "agents": list(it.grant.agents)}
