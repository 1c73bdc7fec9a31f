"""Roles: what may be done to which agents, as values.

::

    viewer      reads
    tester      + runs and pushes snapshots
    operator    + moves `current`
    maintainer  + makes versions and agents, and looks after them
    admin       + grants

Whoever has no role for an agent may do nothing to it, and is not told that it is there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum

from kaivc.errors import InvalidName, NoSuchAgent, PermissionDenied
from kaivc.names import nearest
from kaivc.records import dataclass


class Act(StrEnum):
    """What is asked for."""

    READ = "read"
    SNAPSHOT = "snapshot"
    """Run, commit, drop or push a snapshot."""
    CURRENT = "current"
    """Move `current`, or write the workspace."""
    VERSION = "version"
    """Make a version."""
    CREATE = "create"
    """Make an agent."""
    MAINTAIN = "maintain"
    """Rename, remove or link an agent; collect or repair what is stored."""
    GRANT = "grant"
    """Give a role, or take one."""


class Role(StrEnum):
    """Each may what those before it may."""

    VIEWER = "viewer"
    TESTER = "tester"
    OPERATOR = "operator"
    MAINTAINER = "maintainer"
    ADMIN = "admin"


_NEEDS = {
    Act.READ: Role.VIEWER,
    Act.SNAPSHOT: Role.TESTER,
    Act.CURRENT: Role.OPERATOR,
    Act.VERSION: Role.MAINTAINER,
    Act.CREATE: Role.MAINTAINER,
    Act.MAINTAIN: Role.MAINTAINER,
    Act.GRANT: Role.ADMIN,
}
_RANK = {role: rank for rank, role in enumerate(Role)}
_DOING = {
    Act.READ: "read {}",
    Act.SNAPSHOT: "test {}, or keep snapshots of it",
    Act.CURRENT: "move `current` of {}, or run it",
    Act.VERSION: "make versions of {}",
    Act.CREATE: "make an agent {}",
    Act.MAINTAIN: "rename, remove, collect or repair {}",
    Act.GRANT: "give or take roles over {}",
}

ALL = "*"
"""The pattern that every agent fits."""
MAX_PATTERNS = 100
_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]{0,62}\Z")


def who_may(act: str) -> Role:
    """The least role that may."""
    return _NEEDS[Act(act)]


def read_role(text: str) -> Role:
    """The role of a name; InvalidName with the nearest."""
    try:
        return Role(text)
    except ValueError as error:
        close = nearest(text[:100], list(Role))
        hint = f"did you mean {close[0]}?" if close else f"roles are {', '.join(Role)}"
        raise InvalidName(f"there is no role {text!r:.100}", unchanged="nothing was granted", hint=hint) from error


# ---------------------------------------------------------------- patterns


def check_pattern(text: str) -> str:
    """Return a pattern of agents' names: letters as names have them, ``*`` for any, ``?`` for one; InvalidName else."""
    if not _PATTERN.match(text):
        raise InvalidName(
            f"{text!r:.100} is no pattern of agents",
            unchanged="nothing was granted",
            hint="write a name, with `*` for any letters and `?` for one: `summarizer`, `billing-*`, `*`",
        )
    return text


def covers(wide: str, narrow: str) -> bool:
    """Whether all that fits ``narrow``, a name or a pattern, fits ``wide``, wholly and from its first letter on."""
    at = star = -1
    place = taken = 0
    while place < len(narrow):
        letter = wide[at + 1] if at + 1 < len(wide) else ""
        if letter == "*":
            at += 1
            star, taken = at, place
        elif letter == narrow[place] or (letter == "?" and narrow[place] != "*"):
            at += 1
            place += 1
        elif star >= 0:
            at, taken = star, taken + 1
            place = taken
        else:
            return False
    return not wide[at + 1 :].strip("*")


# ---------------------------------------------------------------- what somebody has


@dataclass(frozen=True)
class Grant:
    """A role over the agents that fit one of these patterns."""

    role: Role
    agents: tuple[str, ...]

    def may(self, act: str, agent: str) -> bool:
        """Whether it allows this; ``agent`` may be a pattern."""
        return _RANK[self.role] >= _RANK[who_may(act)] and any(covers(it, agent) for it in self.agents)


@dataclass(frozen=True)
class Powers:
    """All that somebody was granted."""

    grants: tuple[Grant, ...] = ()

    def may(self, act: str, agent: str) -> bool:
        """Whether one of the grants allows it. What none allows is denied."""
        return any(it.may(act, agent) for it in self.grants)

    def require(self, who: str, agent: str, acts: Collection[str]) -> None:
        """Raise unless all of these are allowed: NoSuchAgent where not even reading is, else PermissionDenied.

        For none in particular: unless something may be pushed.
        """
        if not self.may(Act.READ, agent):
            raise unseen(agent)
        if not acts and not self.may(Act.SNAPSHOT, agent):
            raise may_not_push(who, agent)
        for act in sorted(acts, key=lambda it: (-_RANK[who_may(it)], it)):
            if not self.may(act, agent):
                raise denied(who, agent, act)


def denied(who: str, agent: str, act: str) -> PermissionDenied:
    """The error for what a role does not allow; it says which role does."""
    needed = who_may(act)
    those = [role for role in Role if _RANK[role] >= _RANK[needed]]
    shown = ", ".join(those[:-1]) + (" and " if len(those) > 1 else "") + those[-1]
    over = "all agents" if agent == ALL else agent
    return PermissionDenied(
        f"{who} may not {_DOING[Act(act)].format(over)}: roles that may are {shown}",
        unchanged="nothing moved",
        hint=f"ask an admin for the role {needed} over {over}",
        act=str(act),
        agent=agent,
        roles=", ".join(those),
    )


def may_not_push(who: str, agent: str) -> PermissionDenied:
    """The error for who would send something, and may send nothing."""
    kinds = ((Act.SNAPSHOT, "snapshots"), (Act.CURRENT, "moves of `current`"), (Act.VERSION, "versions"))
    takes = ", ".join(f"{what} take the role {who_may(act)}" for act, what in kinds)
    return PermissionDenied(
        f"{who} may push nothing to {agent}: {takes}, or a higher one",
        unchanged="nothing moved",
        hint=f"ask an admin for such a role over {agent}",
        act="push",
        agent=agent,
    )


def unseen(agent: str) -> NoSuchAgent:
    """The one answer for an agent that is not there, and for one that may not be seen."""
    hint = "look at the name, or ask for a role"
    return NoSuchAgent(f"there is no agent {agent!r:.100}", hint=hint, name=agent[:100])
