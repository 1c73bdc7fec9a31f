"""Who may what in a home: ``.kai/access.json``, written by kai alone; and what a token, or a user of this machine, may.

A token is 256 random bits. The file holds only its SHA-256, so whoever reads the file can ask for nothing with it.
Without a rule for users the home's owner may everything, root may, and in a home that is shared the group.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterable

from kaivc import adminlog, links
from kaivc.errors import CredentialsNeeded, InvalidName, InvalidSettings, NameTaken, PermissionDenied
from kaivc.layout import Layout
from kaivc.names import Actor, is_name, nearest
from kaivc.records import dataclass, replace
from kaivc.repository import OpenHome
from kaivc.roles import ALL, MAX_PATTERNS, Act, Grant, Powers, Role, check_pattern, denied, read_role, unseen

FORMAT = 1
MAX_FILE = 8 << 20
PREFIX = "kai_"
SECRET_BYTES = 32
_TOKEN = re.compile(r"kai_[A-Za-z0-9_-]{43}\Z")
_ID = re.compile(r"[0-9a-f]{12}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Token:
    """What is known of a token. ``digest`` is the SHA-256 of its text; times in ns since 1970, None for never."""

    id: str
    name: str
    digest: str
    actor: str
    grant: Grant
    created_ns: int
    expires_ns: int | None = None

    def expired(self, now_ns: int) -> bool:
        """Whether its time is over."""
        return self.expires_ns is not None and self.expires_ns <= now_ns


@dataclass(frozen=True)
class User:
    """What a user of this machine was granted; the number decides, the name is as it was then."""

    uid: int
    name: str
    grant: Grant


@dataclass(frozen=True)
class Rules:
    """All that the file says."""

    tokens: tuple[Token, ...] = ()
    users: tuple[User, ...] = ()

    def powers(self, uid: int) -> Powers:
        """What a user was granted."""
        return Powers(tuple(it.grant for it in self.users if it.uid == uid))

    def token(self, text: str, now_ns: int) -> Token | None:
        """The token whose text this is, unless its time is over. It takes as long whatever the text is."""
        digest = digest_of(text)
        found = None
        for it in self.tokens:
            if hmac.compare_digest(it.digest, digest):
                found = it
        return None if found is None or found.expired(now_ns) else found


def new_secret() -> str:
    """The text of a new token."""
    return PREFIX + base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).rstrip(b"=").decode("ascii")


def is_token(text: str) -> bool:
    """Whether a text has the form of a token."""
    return bool(_TOKEN.match(text))


def digest_of(text: str) -> str:
    """What the file holds of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


# ---------------------------------------------------------------- the file


def read(layout: Layout) -> Rules:
    """What the file says now; InvalidSettings if it was damaged: then nobody may anything."""
    try:
        with open(layout.access, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        return Rules()
    except PermissionError as error:
        raise PermissionDenied(
            f"this user may not read {layout.access}, which says who may what",
            unchanged="nothing moved",
            hint="ask whose home it is",
        ) from error
    return decode(data, layout.access)


def decode(data: bytes, source: str) -> Rules:
    """The rules of a file's bytes; InvalidSettings."""
    try:
        document = json.loads(data)
        if len(data) > MAX_FILE or document["format"] != FORMAT:
            raise ValueError("no format that is known")  # noqa: TRY301 - one handler for all that can be wrong
        return Rules(tuple(map(_token, document["tokens"])), tuple(map(_user, document["users"])))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidName) as error:
        raise InvalidSettings(
            f"{source} does not say who may what: it was damaged, or written by something else",
            unchanged="nothing moved: nobody may anything meanwhile",
            hint="put back a copy, or remove it and grant roles and tokens anew",
            file=source,
        ) from error


def _token(it: dict[str, object]) -> Token:
    name, identity, digest, expires = str(it["name"]), str(it["id"]), str(it["sha256"]), it["expires_ns"]
    if not (is_name(name) and _ID.match(identity) and _DIGEST.match(digest)):
        raise ValueError("no token")
    actor = str(Actor.parse(str(it["actor"])))
    until = None if expires is None else _count(expires)
    return Token(identity, name, digest, actor, _grant(it), _count(it["created_ns"]), until)


def _user(it: dict[str, object]) -> User:
    name = str(it["name"])
    if not name.isprintable():
        raise ValueError("no name")
    return User(_count(it["uid"]), name, _grant(it))


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no count")
    return value


def _grant(it: dict[str, object]) -> Grant:
    patterns = it["agents"]
    if not isinstance(patterns, list) or not 0 < len(patterns) <= MAX_PATTERNS:
        raise ValueError("no patterns")
    return Grant(read_role(str(it["role"])), tuple(check_pattern(str(one)) for one in patterns))


def encode(rules: Rules) -> bytes:
    """The file's bytes."""
    document = {
        "format": FORMAT,
        "tokens": [
            {
                "id": it.id,
                "name": it.name,
                "sha256": it.digest,
                "actor": it.actor,
                **_grant_map(it.grant),
                "created_ns": it.created_ns,
                "expires_ns": it.expires_ns,
            }
            for it in rules.tokens
        ],
        "users": [{"uid": it.uid, "name": it.name, **_grant_map(it.grant)} for it in rules.users],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _grant_map(grant: Grant) -> dict[str, object]:
    return {"role": str(grant.role), "agents": list(grant.agents)}


def change(home: OpenHome, become: Callable[[Rules], Rules]) -> Rules:
    """Write the file anew, wholly or not at all, one at a time; what ``become`` raises leaves it as it was."""
    home.require_writable()
    with links.held(home.vfs, home.layout, home.sleep, home.settings.lock_wait):
        before = read(home.layout)
        after = become(before)
        if after != before:
            home.vfs.replace(home.layout.access, encode(after))
    return after


# ---------------------------------------------------------------- changes, as values


def grant_of(role: str, agents: Iterable[str]) -> Grant:
    """A grant as somebody typed it; InvalidName."""
    patterns = tuple(dict.fromkeys(map(check_pattern, agents))) or (ALL,)
    if len(patterns) > MAX_PATTERNS:
        what = f"{len(patterns)} patterns; at most {MAX_PATTERNS} are taken"
        raise InvalidName(what, unchanged="nothing was granted")
    return Grant(read_role(role), patterns)


def with_token(rules: Rules, token: Token) -> Rules:
    """The rules with one more token; NameTaken."""
    if any(it.name == token.name for it in rules.tokens):
        raise NameTaken(
            f"there is a token {token.name!r} already",
            unchanged="nothing was granted",
            hint="choose another name, or `kai token revoke` that one first",
            name=token.name,
        )
    return replace(rules, tokens=(*rules.tokens, token))


def find_token(rules: Rules, text: str) -> Token:
    """The token of an id or a name; InvalidName with the nearest names."""
    for it in rules.tokens:
        if text in (it.id, it.name):
            return it
    close = nearest(text[:100], [it.name for it in rules.tokens])
    hint = f"did you mean {', '.join(close)}?" if close else "`kai token list` shows those that there are"
    # A person may paste the token itself, which no error may hold.
    shown = "one of that text" if text.startswith(PREFIX) else repr(text[:100])
    raise InvalidName(f"there is no token {shown}", unchanged="nothing was revoked", hint=hint, nearest=close)


def without_token(rules: Rules, token: Token) -> Rules:
    """The rules without a token."""
    return replace(rules, tokens=tuple(it for it in rules.tokens if it.id != token.id))


def with_user(rules: Rules, user: User) -> Rules:
    """The rules with a grant more; one of the same role to the same user is replaced."""
    others = (it for it in rules.users if (it.uid, it.grant.role) != (user.uid, user.grant.role))
    rank = {role: number for number, role in enumerate(Role)}
    return replace(rules, users=tuple(sorted((*others, user), key=lambda it: (it.uid, rank[it.grant.role]))))


def replaced_by(rules: Rules, user: User) -> tuple[str, ...]:
    """The patterns of the grant whose place this one takes."""
    return tuple(
        pattern
        for it in rules.users
        if (it.uid, it.grant.role) == (user.uid, user.grant.role)
        for pattern in it.grant.agents
    )


def without_user(rules: Rules, uid: int, role: Role | None) -> Rules:
    """The rules without what a user was granted, or without one role of it."""
    kept = tuple(it for it in rules.users if it.uid != uid or (role is not None and it.grant.role != role))
    return replace(rules, users=kept)


def require_an_admin(rules: Rules) -> Rules:
    """Return rules that leave somebody who can change them, or that bind nobody; PermissionDenied otherwise."""
    if rules.users and not any(it.grant.may(Act.GRANT, ALL) for it in rules.users):
        raise PermissionDenied(
            "nobody would be left who may grant",
            unchanged="nothing was taken",
            hint="make somebody else an admin over all agents first, or take all other roles before this one",
        )
    return rules


# ---------------------------------------------------------------- whoever asks, to the rules


def allows_all(home: OpenHome, uid: int) -> bool:
    """Whether a user may everything where no rule says otherwise: the owner, root, the group of a shared home."""
    status = os.stat(home.layout.kai)
    if uid in (0, status.st_uid):
        return True
    return home.shared and status.st_gid in (os.getegid(), *os.getgroups())


def _login(uid: int) -> str:
    import pwd  # noqa: PLC0415 - only an error needs it

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class UserAccess:
    """A user of this machine, known by the uid of the process: ``serving.Access`` by path and by ssh."""

    def __init__(self, home: OpenHome) -> None:
        self._home = home
        self._uid = os.geteuid()

    @property
    def name(self) -> str:
        """Who it is, for file names and logs."""
        return f"uid-{self._uid}"

    def actor(self, said: str) -> Actor:
        """What they say of themselves, as in a home of their own."""
        return Actor.parse(said)

    def may_read(self, agent: str) -> bool:
        """Whether an agent may be read: without rules, by whoever could open the home."""
        rules = read(self._home.layout)
        return not rules.users or rules.powers(self._uid).may(Act.READ, agent)

    def require(self, agent: str, acts: frozenset[str]) -> None:
        """Raise unless each of these may be done: NoSuchAgent where not even reading may, else PermissionDenied.

        For none in particular: unless something may be pushed.
        """
        if not self.may_read(agent):
            raise unseen(agent)
        for act in tuple(acts) or (Act.SNAPSHOT,):
            self.require_act(agent, act)

    def require_act(self, agent: str, act: str) -> None:
        """Raise PermissionDenied unless it may be done to an agent that the user can see; a denial is noted."""
        rules = read(self._home.layout)
        if rules.powers(self._uid).may(act, agent) if rules.users else allows_all(self._home, self._uid):
            return
        if not rules.users:
            self._home.require_writable()  # who may not write here at all is told that
        error = denied(f"user {_login(self._uid)}", agent, act)
        adminlog.note(self._home, agent, error)
        raise error


class TokenAccess:
    """Whoever shows a token: ``serving.Access`` over HTTP. ``holds`` tells whether it is one still."""

    def __init__(self, token: Token, holds: Callable[[Token], bool]) -> None:
        self.token = token
        self._holds = holds
        self._powers = Powers((token.grant,))

    @property
    def name(self) -> str:
        """Which token it is, for file names and logs."""
        return f"token-{self.token.id}"

    def actor(self, said: str) -> Actor:  # noqa: ARG002 - a peer does not choose who it is
        """Whom the token stands for, whatever the peer says of itself."""
        return Actor.parse(self.token.actor)

    def may_read(self, agent: str) -> bool:
        """Whether an agent may be read."""
        return self._powers.may(Act.READ, agent)

    def require(self, agent: str, acts: frozenset[str]) -> None:
        """Raise PermissionDenied, or NoSuchAgent where not even reading is allowed, unless each of these is.

        CredentialsNeeded for a token that was revoked since, or whose time is over by now: a push may last for hours.
        """
        if not self._holds(self.token):
            raise CredentialsNeeded(
                "the token was revoked meanwhile, or its time is over",
                unchanged="nothing moved",
                hint="`kai token add NAME --role ROLE` over there makes one",
            )
        self._powers.require(f"token {self.token.name}", agent, acts)


class Anonymous:
    """Whoever shows nothing, where `kai serve --anonymous viewer` lets them read all agents."""

    name = "anonymous"
    _powers = Powers((Grant(Role.VIEWER, (ALL,)),))

    def actor(self, said: str) -> Actor:  # noqa: ARG002 - as above
        """Nobody: nothing is ever written for them."""
        return Actor("anonymous", "anonymous@localhost")

    def may_read(self, agent: str) -> bool:
        """Whether an agent may be read."""
        return self._powers.may(Act.READ, agent)

    def require(self, agent: str, acts: frozenset[str]) -> None:
        """Raise PermissionDenied."""
        self._powers.require("whoever shows no token", agent, acts)
