"""Connect to a remote: one kind of carrier for each kind of URL."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from kaivc import remotelist

if TYPE_CHECKING:
    from kaivc.remotes.base import Context, Remote


def connect(context: Context, url: str) -> Remote:
    """A connection to what a URL or path names; RefusedUrl for one that names nothing."""
    remotelist.check_url(url)
    scheme = url.split("://", 1)[0].lower() if "://" in url else ""
    if remotelist.is_git(url):
        from kaivc.remotes.git import connect as to_git

        return to_git(context, url)
    if scheme in ("http", "https"):
        from kaivc.remotes.http import connect as to_http

        return to_http(context, url)
    if scheme == "ssh":
        from kaivc.remotes.ssh import connect as to_ssh

        return to_ssh(context, url)
    path = unquote(urlsplit(url).path) if scheme == "file" else url
    if remotelist.is_bundle(path):
        from kaivc.remotes.bundle import connect as to_bundle

        return to_bundle(context, path)
    from kaivc.remotes.path import connect as to_path

    return to_path(context, path)
