"""Every error that kaivc raises, in one tree.

::

    KaiError                                  code   exit
    ├── InvalidRollbackVersion                E101   3    not there, or corrupt; nothing moved
    ├── ChecksumMismatch                      E102   4    a byte is not what its commit says
    ├── IsolationFailed                       E103   5    the sandbox could not be had; nothing ran
    ├── Incompatible                          E104   6    rollback validation failed; nothing moved
    ├── PermissionDenied                      E105   7    the role may not
    ├── NameConflict                                 8    nothing moved; what is there now
    │   ├── VersionTaken                      E201
    │   ├── LostRace                          E202        a ref is not what the update expected
    │   ├── LockTimeout                       E203        waited past `lock.wait`
    │   └── NameTaken                         E204        an agent of that name is there
    ├── WorkspaceError                               9
    │   ├── NoSuchHome                        E301
    │   ├── NoSuchAgent                       E302
    │   ├── NoSuchRevision                    E303
    │   ├── InvalidName                       E304
    │   ├── InvalidManifest                   E305        file and line
    │   ├── InvalidSettings                   E306        file and line
    │   ├── UnsettledFile                     E307        changed while it was read
    │   ├── RefusedPath                       E308        a socket, a device, an unsafe name or link
    │   ├── TooLarge                          E309
    │   ├── RefusedWorkspace                  E310        $HOME, /, inside a home
    │   ├── UnreadablePath                    E311
    │   ├── AgentBusy                         E312        a run holds a lease, a database cannot be locked
    │   ├── NothingToUndo                     E313
    │   ├── NoSuchPath                        E314
    │   ├── TargetNotEmpty                    E315
    │   ├── NoVersionYet                      E316
    │   ├── HomeExists                        E317
    │   ├── NothingToCommit                   E318   1    a check that said no
    │   ├── NoEntry                           E319        nothing says what to run
    │   ├── CommandFailed                     E320        quiesce or resume failed
    │   └── MissingSecret                     E321
    ├── TransportError                        E401   10
    └── StorageError                                 11
        ├── StorageFailed                     E901        the disk said no; store unchanged
        ├── NoSpace                           E902
        ├── OutcomeUnknown                    E903        repeating with the same op id is safe
        ├── UnknownFormat                     E904        written by a kaivc that this one does not know
        └── InternalError                     E999

Codes are unique and never reused.
"""

from __future__ import annotations

from typing import Any, ClassVar


class KaiError(Exception):
    """What happened, what did not, and what to do next.

    ``facts`` holds JSON-able particulars (paths, hashes, names) for programs.
    """

    code: ClassVar[str] = "E999"
    exit_code: ClassVar[int] = 11
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, *, unchanged: str = "", hint: str = "", **facts: object) -> None:
        super().__init__(what)
        self.what = what
        self.unchanged = unchanged
        self.hint = hint
        self.facts = facts

    def as_dict(self) -> dict[str, Any]:
        """The error as one JSON document."""
        document: dict[str, Any] = {"code": self.code, "message": self.what}
        if self.unchanged:
            document["unchanged"] = self.unchanged
        if self.hint:
            document["hint"] = self.hint
        if self.facts:
            document["facts"] = self.facts
        return {"error": document}


class InvalidRollbackVersion(KaiError):
    """The version to go to is not there, or is corrupt."""

    code = "E101"
    exit_code = 3
    http_status = 404


class ChecksumMismatch(KaiError):
    """A view, a workspace file or a stored byte is not what the commit says."""

    code = "E102"
    exit_code = 4
    http_status = 409


class IsolationFailed(KaiError):
    """A sandbox guard is missing; the command never ran."""

    code = "E103"
    exit_code = 5
    http_status = 503


class Incompatible(KaiError):
    """The rollback would break a promise; the reasons are in ``facts["reasons"]``."""

    code = "E104"
    exit_code = 6
    http_status = 409


class PermissionDenied(KaiError):
    """The role does not allow it."""

    code = "E105"
    exit_code = 7
    http_status = 403


class NameConflict(KaiError):
    """Somebody else was first."""

    code = "E200"
    exit_code = 8
    http_status = 409


class VersionTaken(NameConflict):
    """A version number is used once."""

    code = "E201"


class LostRace(NameConflict):
    """A ref is not what the update expected."""

    code = "E202"


class LockTimeout(NameConflict):
    """Another process holds the lock for longer than ``lock.wait``."""

    code = "E203"
    http_status = 423


class NameTaken(NameConflict):
    """An agent of that name exists."""

    code = "E204"


class WorkspaceError(KaiError):
    """Something about the workspace, the agent, the manifest or the configuration."""

    code = "E300"
    exit_code = 9
    http_status = 422


class NoSuchHome(WorkspaceError):
    """No home here or above."""

    code = "E301"
    http_status = 404


class NoSuchAgent(WorkspaceError):
    """No agent of that name; the nearest names are said."""

    code = "E302"
    http_status = 404


class NoSuchRevision(WorkspaceError):
    """A revision that names nothing; the nearest names are said."""

    code = "E303"
    http_status = 404


class InvalidName(WorkspaceError):
    """A name, number or revision that is not well-formed."""

    code = "E304"


class InvalidManifest(WorkspaceError):
    """``kai.yaml`` is not well-formed; file, line and nearest key are said."""

    code = "E305"


class InvalidSettings(WorkspaceError):
    """A configuration file or flag is not well-formed."""

    code = "E306"


class UnsettledFile(WorkspaceError):
    """A file changed each time it was read."""

    code = "E307"


class RefusedPath(WorkspaceError):
    """A kind of file, a name or a link that a version cannot hold."""

    code = "E308"


class TooLarge(WorkspaceError):
    """Past a configured limit."""

    code = "E309"
    http_status = 413


class RefusedWorkspace(WorkspaceError):
    """A directory that must not be an agent's workspace."""

    code = "E310"


class UnreadablePath(WorkspaceError):
    """The system does not let this user read a path."""

    code = "E311"


class AgentBusy(WorkspaceError):
    """A run holds a lease, or a live database cannot be locked."""

    code = "E312"
    http_status = 409


class NothingToUndo(WorkspaceError):
    """No move is left to undo or redo."""

    code = "E313"
    http_status = 409


class NoSuchPath(WorkspaceError):
    """A path that the version does not hold; the nearest are said."""

    code = "E314"
    http_status = 404


class TargetNotEmpty(WorkspaceError):
    """The directory to write to holds something."""

    code = "E315"
    http_status = 409


class NoVersionYet(WorkspaceError):
    """The agent has no version."""

    code = "E316"
    http_status = 404


class HomeExists(WorkspaceError):
    """A home is there already."""

    code = "E317"
    http_status = 409


class NothingToCommit(WorkspaceError):
    """The workspace is what `current` says; a check that said no."""

    code = "E318"
    exit_code = 1
    http_status = 409


class NoEntry(WorkspaceError):
    """Neither the manifest nor the command line says what to run."""

    code = "E319"


class CommandFailed(WorkspaceError):
    """A command of the manifest (quiesce, resume) failed."""

    code = "E320"


class MissingSecret(WorkspaceError):
    """A secret file is absent and no source is configured for it."""

    code = "E321"


class TransportError(KaiError):
    """A remote could not be reached or refused."""

    code = "E401"
    exit_code = 10
    http_status = 502


class StorageError(KaiError):
    """The disk, the space on it, or a fault of kaivc itself."""

    code = "E900"
    exit_code = 11


class StorageFailed(StorageError):
    """The system refused a read or a write; the store is unchanged."""

    code = "E901"


class NoSpace(StorageError):
    """The disk or the quota is full; the store is unchanged."""

    code = "E902"
    http_status = 507


class OutcomeUnknown(StorageError):
    """The last sync failed: what was asked may or may not have landed."""

    code = "E903"


class UnknownFormat(StorageError):
    """Written in a format that this release does not know."""

    code = "E904"


class InternalError(StorageError):
    """A fault of kaivc."""

    code = "E999"
