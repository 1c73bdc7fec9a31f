"""Who one is to a host: from KAI_TOKEN, git's credential helpers, netrc, or the user; never from a URL or our files.

A secret is held in memory only, goes to the origin (scheme, host and port) that it was found for, over TLS or to this
machine, and is taken out of whatever is told.
"""

from __future__ import annotations

import ipaddress
import netrc
import os
import subprocess
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import urlsplit

from kaivc.errors import CredentialsNeeded, KaiError
from kaivc.records import dataclass
from kaivc.remotes.base import Ask

HELPER_SECONDS = 120
ANY_USER = "kai"
"""The name beside a token, for hosts that look at the token alone."""
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """What a secret belongs to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """The origin of a URL."""
        parts = urlsplit(url)
        return cls(parts.scheme, (parts.hostname or "").lower(), parts.port or PORTS.get(parts.scheme, 0))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port != PORTS.get(self.scheme) else "")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along."""
        if self.scheme == "https" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True)
class Credential:
    """A user and a secret; ``helped`` if git's helpers gave it, and want to hear whether it was right."""

    user: str
    secret: str
    helped: bool = False

    def __repr__(self) -> str:
        return f"Credential({self.user!r})"


def candidates(origin: Origin, user: str, environ: Mapping[str, str], ask: Ask, *, own: bool) -> Iterator[Credential]:
    """What may be tried, best first. KAI_TOKEN is for the ``own`` origin only: the one that the user named."""
    if not origin.is_private:
        raise CredentialsNeeded(
            f"{origin} wants credentials, and anybody on the way could read them",
            unchanged="nothing was sent",
            hint="use https://, or ssh",
        )
    token = environ.get("KAI_TOKEN", "").strip()
    if token and own:
        yield Credential(user or ANY_USER, token)
    helped = _helped(origin, user, environ)
    if helped is not None:
        yield helped
    noted = _from_netrc(origin, user, environ)
    if noted is not None:
        yield noted
    asked = _asked(origin, user, ask)
    if asked is not None:
        yield asked


def needed(origin: Origin, tried: int) -> CredentialsNeeded:
    """The error for when nothing, or nothing right, was found."""
    what = "took none of the credentials that were found" if tried else "wants credentials, and none were found"
    hint = "put a token into git's credential helper, ~/.netrc or KAI_TOKEN, or run the command on a terminal"
    if tried:
        hint = "a token may be wrong, revoked, or its time over: ask for another, and " + hint
    return CredentialsNeeded(f"{origin} {what}", unchanged="nothing was sent", hint=hint)


def _helped(origin: Origin, user: str, environ: Mapping[str, str]) -> Credential | None:
    found = _git("fill", _described(origin, user), environ)
    name, secret = found.get("username", ""), found.get("password", "")
    return Credential(name, secret, helped=True) if secret else None


def tell(origin: Origin, credential: Credential, environ: Mapping[str, str], *, right: bool) -> None:
    """Let git's helpers know whether what they gave was right."""
    if credential.helped:
        described = {**_described(origin, credential.user), "password": credential.secret}
        _git("approve" if right else "reject", described, environ)


def _described(origin: Origin, user: str) -> dict[str, str]:
    host = str(origin).partition("://")[2]
    return {"protocol": origin.scheme, "host": host, **({"username": user} if user else {})}


def _git(verb: str, fields: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Ask git's helpers; nothing where there is no git. Run where no repository's own settings are read."""
    text = "".join(f"{key}={value}\n" for key, value in fields.items())
    if any("\n" in value or "\0" in value for value in fields.values()):
        return {}
    kept = {key: value for key, value in environ.items() if not key.startswith(("GIT_TRACE", "GIT_DIR", "GIT_WORK"))}
    try:
        done = subprocess.run(  # noqa: S603 - a fixed argv; the secret goes through a pipe
            ["git", "credential", verb],  # noqa: S607 - git is found as the user finds it
            input=text.encode() + b"\n",
            capture_output=True,
            env={**kept, "GIT_TERMINAL_PROMPT": "0"},
            cwd="/",
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    pairs = (line.partition("=") for line in done.stdout.decode("utf-8", "replace").splitlines())
    return {key: value for key, _, value in pairs}


def _from_netrc(origin: Origin, user: str, environ: Mapping[str, str]) -> Credential | None:
    path = environ.get("NETRC") or os.path.join(environ.get("HOME", "/nonexistent"), ".netrc")
    try:
        found = netrc.netrc(path).authenticators(origin.host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    if not found or not found[2] or (user and found[0] != user):
        return None
    return Credential(found[0] or user or ANY_USER, found[2])


def _asked(origin: Origin, user: str, ask: Ask) -> Credential | None:
    name = user or ask(f"User at {origin} (none is needed with a token of kai's): ", False)
    if name is None:
        return None
    name = name or ANY_USER
    secret = ask(f"Token or password of {name} at {origin}: ", True)
    return Credential(name, secret) if secret else None


def without(error: KaiError, secrets: Collection[str]) -> KaiError:
    """The same error without secrets that the other side may have said back."""
    if not secrets:
        return error
    what, unchanged, hint = (blotted(text, secrets) for text in (error.what, error.unchanged, error.hint))
    return type(error)(what, unchanged=unchanged, hint=hint, **_blotted_facts(error.facts, secrets))


def blotted(text: str, secrets: Collection[str]) -> str:
    """A text without secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _blotted_facts(facts: Mapping[str, object], secrets: Collection[str]) -> dict[str, object]:
    def cleaned(it: object) -> object:
        if isinstance(it, str):
            return blotted(it, secrets)
        if isinstance(it, Mapping):
            return {key: cleaned(value) for key, value in it.items()}
        return [cleaned(value) for value in it] if isinstance(it, list) else it

    return {key: cleaned(it) for key, it in facts.items()}
