"""Every path in a home, built here and nowhere else.

::

    HOME/
      .kai/catalog.sqlite  .kai/packs/AGENT/NAME.pack  .kai/config.yaml  .kai/local.yaml
      .kai/locks/AGENT.lock  .kai/locks/AGENT.lease  .kai/locks/AGENT.gc  .kai/locks/AGENT.tests
      .kai/log  .kai/log.1
      .kai/access.json  .kai/remotes.yaml  .kai/incoming/AGENT/ID.parcel  .kai/seen/REMOTE/AGENT.json
      .kai/tmp/  .kai/staging/AGENT/OP/  .kai/displaced/AGENT/OP/  .kai/removed/AGENT/
      AGENT/workspace/  AGENT/versions/vX.Y.Z/  AGENT/current  AGENT/rollback.log  AGENT/snapshot_temp/ID.json
"""

from __future__ import annotations

import os

from kaivc.errors import NoSuchHome
from kaivc.records import dataclass

KAI = ".kai"
UNFINISHED = ".new"
"""Stands in a directory that was made, until the catalog names its agent."""
META_FILE = b"snapshot_meta.json"
"""Made from the store at the root of every view; reserved there, and so never stored."""


@dataclass(frozen=True)
class Layout:
    """The paths of the home at ``root`` (absolute)."""

    root: str

    @property
    def kai(self) -> str:
        """The directory that holds what kaivc keeps."""
        return f"{self.root}/{KAI}"

    @property
    def catalog(self) -> str:
        """The SQLite catalog."""
        return f"{self.kai}/catalog.sqlite"

    @property
    def repaired(self) -> str:
        """A catalog that a repair made, whole, waiting to take the other's place."""
        return f"{self.kai}/catalog.repaired"

    @property
    def home_file(self) -> str:
        """What the home is, for whoever has no catalog."""
        return f"{self.kai}/home.json"

    @property
    def quarantine(self) -> str:
        """What repairs moved out of the way; nothing is ever removed from it."""
        return f"{self.kai}/quarantine"

    @property
    def config(self) -> str:
        """The home's configuration."""
        return f"{self.kai}/config.yaml"

    @property
    def local(self) -> str:
        """What holds on this machine only."""
        return f"{self.kai}/local.yaml"

    @property
    def packs(self) -> str:
        """The parent of all pack directories."""
        return f"{self.kai}/packs"

    @property
    def locks(self) -> str:
        """Lock and lease files."""
        return f"{self.kai}/locks"

    @property
    def log(self) -> str:
        """What an administrator should know, a line each; what was before it has ``.1`` behind its name."""
        return f"{self.kai}/log"

    @property
    def tmp(self) -> str:
        """Scratch that no crash needs to keep."""
        return os.path.join(self.kai, "tmp")

    def pack_dir(self, agent: str) -> str:
        """The packs of an agent."""
        return f"{self.packs}/{agent}"

    def pack(self, agent: str, name: str) -> str:
        """One pack."""
        return f"{self.packs}/{agent}/{name}.pack"

    def lock(self, agent: str) -> str:
        """What the one mover of an agent holds."""
        return f"{self.locks}/{agent}.lock"

    def collecting(self, agent: str) -> str:
        """What the one gc of an agent holds."""
        return f"{self.locks}/{agent}.gc"

    def lease(self, agent: str) -> str:
        """What runs of an agent hold."""
        return f"{self.locks}/{agent}.lease"

    def testing(self, agent: str) -> str:
        """What tests of snapshots hold: their views stay."""
        return f"{self.locks}/{agent}.tests"

    @property
    def access(self) -> str:
        """Who may what: tokens, and rules for users of this machine."""
        return f"{self.kai}/access.json"

    @property
    def remotes(self) -> str:
        """The names and URLs of remotes."""
        return f"{self.kai}/remotes.yaml"

    def seen(self, remote: str, agent: str = "") -> str:
        """Where the log of an agent stood when a remote was last looked at; the directory of all for none."""
        return f"{self.kai}/seen/{remote}/{agent}.json" if agent else f"{self.kai}/seen/{remote}"

    def incoming(self, agent: str, name: str = "") -> str:
        """A parcel that is arriving; the directory of all for none."""
        return f"{self.kai}/incoming/{agent}/{name}.parcel" if name else f"{self.kai}/incoming/{agent}"

    def staging(self, agent: str, op: str = "") -> str:
        """Files of an operation, complete, waiting to be renamed into the workspace."""
        return f"{self.kai}/staging/{agent}/{op}"

    def displaced(self, agent: str, op: str = "") -> str:
        """Files that an operation moved out of the workspace."""
        return f"{self.kai}/displaced/{agent}/{op}"

    def removed(self, agent: str) -> str:
        """What a removed agent left that no backup holds."""
        return f"{self.kai}/removed/{agent}"

    def agent(self, agent: str) -> str:
        """The directory of an agent."""
        return f"{self.root}/{agent}"

    def workspace(self, agent: str) -> str:
        """The live directory, unless it is linked."""
        return f"{self.root}/{agent}/workspace"

    def versions(self, agent: str) -> str:
        """The parent of all views."""
        return f"{self.root}/{agent}/versions"

    def view(self, agent: str, tag: str) -> str:
        """The read-only directory of a version; ``tag`` as ``v1.2.3``."""
        return f"{self.root}/{agent}/versions/{tag}"

    def current(self, agent: str) -> str:
        """The link to the view in force."""
        return f"{self.root}/{agent}/current"

    def rollback_log(self, agent: str) -> str:
        """One JSON line for each move of ``current``."""
        return f"{self.root}/{agent}/rollback.log"

    def unfinished(self, agent: str) -> tuple[str, str]:
        """The marks of what is to become an agent: in its directory, and in that of its packs."""
        return f"{self.snapshot_temp(agent)}/{UNFINISHED}", f"{self.pack_dir(agent)}/{UNFINISHED}"

    def snapshot_temp(self, agent: str) -> str:
        """The records of an agent's snapshots."""
        return f"{self.root}/{agent}/snapshot_temp"

    def snapshot_record(self, agent: str, name: str) -> str:
        """What is known of one snapshot, as JSON."""
        return f"{self.snapshot_temp(agent)}/{name}.json"


def link_target(tag: str) -> str:
    """What ``current`` holds for a version."""
    return "versions/" + tag


def find_home(start: str) -> str | None:
    """The nearest directory at or above ``start`` that holds a home; NoSuchHome where there is no "above"."""
    try:
        path = os.path.abspath(start)
    except FileNotFoundError as error:
        raise NoSuchHome(
            "the working directory was removed", hint="go to another, or name the home by its whole path", path=start
        ) from error
    while True:
        if os.path.isdir(os.path.join(path, KAI)):
            return path
        parent = os.path.dirname(path)
        if parent == path:
            return None
        path = parent
