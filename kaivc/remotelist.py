"""Remotes by name, as ``.kai/remotes.yaml`` has them, and where their logs stood when they were last looked at."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from kaivc import links, yamltext
from kaivc.errors import InvalidSettings, NameTaken, NoSuchRemote, RefusedUrl
from kaivc.names import check_name, is_name, nearest
from kaivc.records import dataclass
from kaivc.repository import OpenHome

SCHEMES = frozenset(["ssh", "http", "https", "git", "file", "git+ssh", "git+http", "git+https", "git+file"])
MAX_URL = 4096
MEND = "mend it, or remove it and add the remotes again with `kai remote add`"
TOO_MANY = "remove remotes that are not needed with `kai remote remove`"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCP = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!/)")


@dataclass(frozen=True)
class Known:
    """A remote that has a name."""

    name: str
    url: str


def check_url(url: str) -> str:
    """Return a URL or path that a remote may have; RefusedUrl otherwise."""
    why = hint = ""
    scheme = _SCHEME.match(url)
    if not url or len(url) > MAX_URL or not url.isprintable():
        why, hint = "is empty, overlong, or holds control characters", "look at what was typed"
    elif url.startswith("-"):
        why, hint = "begins with a dash, and would be taken for an option", "put ./ before a path that begins so"
    elif scheme and scheme[1].lower() not in SCHEMES:
        why, hint = f"has the scheme {scheme[1]!r}", f"use a path, or one of {', '.join(sorted(SCHEMES))}"
    elif "::" in url.split("/", 1)[0]:
        why, hint = "names a helper program of git's", "use a path, or a URL with a scheme"
    elif scheme:
        why, hint = _why_refused(url)
    if why:
        raise RefusedUrl(f"{_shown(url)} {why}", unchanged="nothing was noted or sent", hint=hint)
    return url


def _why_refused(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        host, secret = parts.hostname, parts.password
        _ = parts.port
    except ValueError:
        return "cannot be read", "write it as scheme://host/path"
    if secret is not None:
        return "holds a password", "leave it out: it is asked for, or taken from git's credential helper or ~/.netrc"
    is_file = parts.scheme in ("file", "git+file")
    if not is_file and (not host or host.startswith("-") or (parts.username or "").startswith("-")):
        return "names no host", "write it as scheme://host/path"
    if parts.query or parts.fragment:
        return "has a query or a fragment", "leave out what comes from '?' or '#' on"
    return "", ""


def _shown(url: str) -> str:
    """A URL without what may be a secret."""
    cleaned = re.sub(r"//[^/@]*@", "//", url[:200])
    return repr(re.sub(r"[?#].*", "", cleaned))


def shown(url: str) -> str:
    """A URL as it is said to people."""
    return re.sub(r"//[^/@]*:[^/@]*@", "//", url)


def is_git(url: str) -> bool:
    """Whether git's own protocol is spoken there: by its scheme, its form, or a path that ends in ``.git``."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return _is_git_path(url) if is_path(url) else True
    kind = scheme[1].lower()
    if kind.startswith("git"):
        return True
    path = urlsplit(url).path
    return _is_git_path(path) if kind == "file" else path.rstrip("/").endswith(".git")


def is_path(url: str) -> bool:
    """Whether it is a path of this machine, and no URL."""
    return _SCHEME.match(url) is None and (url.startswith(("/", ".")) or not _SCP.match(url))


def _is_git_path(path: str) -> bool:
    """Whether a directory of this machine is a repository of git's, bare or not."""
    if os.path.isdir(os.path.join(path, ".kai")):
        return False
    inner = os.path.join(path, ".git")
    return any(os.path.isdir(os.path.join(it, "objects")) for it in (path, inner)) or path.rstrip("/").endswith(".git")


BUNDLE = b"KAIBNDL\1"
"""What a bundle begins with; the last byte is its format."""


def is_bundle(path: str) -> bool:
    """Whether a file of this machine is a bundle."""
    try:
        with open(path, "rb") as file:
            return file.read(len(BUNDLE)) == BUNDLE
    except OSError:
        return False


# ---------------------------------------------------------------- names


def known(home: OpenHome) -> dict[str, Known]:
    """All remotes, by name; InvalidSettings for a file that cannot be read."""
    return listed(home.layout.remotes)


def listed(path: str) -> dict[str, Known]:
    """The remotes that a file lists, as ``known``."""
    try:
        with open(path, "rb") as file:
            data = file.read(yamltext.MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    try:
        document = yamltext.load(data, path, InvalidSettings)
    except InvalidSettings as error:
        error.hint = error.hint or MEND
        raise
    found = {}
    for name, it in _mapping(_mapping(document, path).get("remotes"), path).items():
        url = _mapping(it, path).get("url")
        if not is_name(name) or url is None or not isinstance(url.value, str):
            raise _unreadable(path)
        found[name] = Known(name, check_url(url.value))
    return dict(sorted(found.items()))


def _mapping(node: yamltext.Node | None, path: str) -> dict[str, yamltext.Node]:
    if node is None or not isinstance(node.value, dict):
        raise _unreadable(path)
    return node.value


def _unreadable(path: str) -> InvalidSettings:
    return InvalidSettings(
        f"{path} does not list remotes",
        hint=MEND,
        file=path,
    )


def find(home: OpenHome, name: str) -> Known:
    """The remote of a name; NoSuchRemote with the nearest names."""
    there = known(home)
    if name not in there:
        close = nearest(name, list(there))
        hint = f"did you mean {', '.join(close)}?" if close else "`kai remote add NAME URL` makes one"
        raise NoSuchRemote(f"there is no remote {name!r:.100}", hint=hint, name=name[:100], nearest=close)
    return there[name]


def add(home: OpenHome, name: str, url: str) -> Known:
    """Note a remote; NameTaken if there is one of that name."""
    check_name("remote", name)
    found = Known(name, check_url(url))
    with _held(home):
        there = known(home)
        if name in there:
            raise NameTaken(
                f"there is a remote {name!r} already: {shown(there[name].url)}",
                unchanged="nothing was noted",
                hint="choose another name, or `kai remote remove` that one",
                name=name,
            )
        _write(home, {**there, name: found})
    return found


def change(home: OpenHome, name: str, to: str | None) -> Known:
    """Rename a remote, or forget it for None, with what is known of its logs; what it was."""
    with _held(home):
        found = find(home, name)
        there = {key: it for key, it in known(home).items() if key != name}
        if to is not None:
            check_name("remote", to)
            if to in there:
                raise NameTaken(f"there is a remote {to!r} already", unchanged="nothing was renamed", name=to)
            there[to] = Known(to, found.url)
        _write(home, there)
        here = home.layout.seen(name)
        if os.path.isdir(here):
            if to is None:
                home.vfs.remove_tree(here)
            else:
                home.vfs.remove_tree(home.layout.seen(to))
                home.vfs.rename(here, home.layout.seen(to))
    return found


def _held(home: OpenHome) -> AbstractContextManager[None]:
    return links.held(home.vfs, home.layout, home.sleep, home.settings.lock_wait)


def _write(home: OpenHome, remotes: Mapping[str, Known]) -> None:
    path, document = home.layout.remotes, {"remotes": {name: {"url": it.url} for name, it in sorted(remotes.items())}}
    home.vfs.replace(path, yamltext.dump(document, path, InvalidSettings, TOO_MANY))


# ---------------------------------------------------------------- logs that were seen


@dataclass(frozen=True)
class Seen:
    """Where an agent's log stood over there, and in which home."""

    home: str
    seq: int
    digest: bytes


def seen(home: OpenHome, remote: str, agent: str) -> Seen | None:
    """What was seen last; None if nothing was, or the note is damaged."""
    try:
        with open(home.layout.seen(remote, agent), "rb") as file:
            note = json.loads(file.read(4096))
        return Seen(str(note["home"]), int(note["seq"]), bytes.fromhex(note["digest"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def note_seen(home: OpenHome, remote: str, agent: str, now: Seen) -> None:
    """Keep what was seen."""
    home.vfs.make_dirs(home.layout.seen(remote), home.dir_mode)
    document = {"home": now.home, "seq": now.seq, "digest": now.digest.hex()}
    home.vfs.replace(home.layout.seen(remote, agent), json.dumps(document).encode())
