"""The application: which protocol answers at which path.

A protocol is a file of this folder that makes a ``Service``; here it gets its place.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route

from kaivc.errors import KaiError, NoSuchPath
from kaivc.server import git, transfer
from kaivc.server.endpoint import House, Service
from kaivc.server.exchange import Exchange


def build(house: House) -> Starlette:
    """The application of a home."""
    app = Starlette(routes=routes(house))
    app.router.redirect_slashes = False
    app.router.default = house.endpoint(_nothing())  # no pattern fits a path with a line break
    return app


def routes(house: House) -> list[BaseRoute]:
    """Every place, the first that fits counts; the last one fits all."""
    return [
        Route(transfer.PATH, house.endpoint(transfer.service(house))),
        *(Route(path, house.endpoint(git.service(house)), methods=[method]) for path, method in git.PATHS),
        Route("/{path:path}", house.endpoint(_nothing())),
    ]


def _nothing() -> Service:
    """Where nothing is; who shows no token is not even told that."""

    def answer(exchange: Exchange) -> None:  # noqa: ARG001 - as a service has it
        raise NoSuchPath("nothing is here", hint=f"kai asks at {transfer.PATH}, git at /AGENT.git and /_home.git")

    return Service(answer, _text)


def _text(error: KaiError) -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", f"{error.code}: {error.what}\n{error.hint}\n".encode()
