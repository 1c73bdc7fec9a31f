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
    │   ├── NameTaken                         E204        an agent of that name is there
    │   ├── VersionConflict                   E205        two machines made the same number
    │   └── Diverged                          E206        `current` is not where it was last fetched
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
    │   ├── MissingSecret                     E321
    │   ├── LinkLost                          E323        the linked directory is gone, or another one
    │   └── InvalidLayout                     E324        a tree to import: file and key
    ├── TransportError                        E401   10   could not be reached, or broke off
    │   ├── NoSuchRemote                      E402
    │   ├── WrongFormat                       E403        the other side hashes with another function
    │   ├── RefusedByRemote                   E404        a hook, a limit or a rule over there
    │   ├── RefusedArrival                    E405        what came is not what a home may hold
    │   ├── ForkedLog                         E406        a log does not go on from where it was last seen
    │   ├── CredentialsNeeded                 E407
    │   └── RefusedUrl                        E408        no scheme that is known, or a secret in it
    └── StorageError                                 11
        ├── StorageFailed                     E901        the disk said no; store unchanged
        ├── NoSpace                           E902
        ├── OutcomeUnknown                    E903        repeating with the same op id is safe
        ├── UnknownFormat                     E904        written by a kaivc that this one does not know
        ├── ReadOnlyHome                      E905        this user may read the home and not write it
        ├── Collected                         E907        gc removed what was being read
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
    """The version to go to is not there, or is corrupt.

    Nothing moves; the nearest versions are named.

    Next: take one of those; `kai versions AGENT` lists all. Of a corrupt one, `kai fsck AGENT` says what is
    damaged.
    """

    code = "E101"
    exit_code = 3
    http_status = 404


class ChecksumMismatch(KaiError):
    """A view, a workspace file or a stored byte is not what the commit says.

    Nothing runs, moves or is handed out; what is wrong, what was expected and what was found are said.

    Next: for a view, `kai rollback --force`, which makes it anew from the store; for a file of the workspace,
    `kai restore`, `kai commit`, or `kai run --dirty`; for a stored byte, `kai fsck --repair`.
    """

    code = "E102"
    exit_code = 4
    http_status = 409


class IsolationFailed(KaiError):
    """A sandbox guard is missing; the command never ran.

    The command never runs; the guard and how to get it are said, and noted in `.kai/log`.

    Next: get the guard (`kai doctor` says what each kind of sandbox needs), then run the command again.
    """

    code = "E103"
    exit_code = 5
    http_status = 503


class Incompatible(KaiError):
    """The rollback would break a promise; the reasons are in ``facts["reasons"]``.

    Nothing moves.

    Next: mend what the reasons name; `--force` takes the version's own counters.
    """

    code = "E104"
    exit_code = 6
    http_status = 409


class PermissionDenied(KaiError):
    """The role does not allow it.

    Nothing moves; which role may is said.

    Next: ask somebody who has that role.
    """

    code = "E105"
    exit_code = 7
    http_status = 403


class NameConflict(KaiError):
    """Somebody else was first."""

    code = "E200"
    exit_code = 8
    http_status = 409


class VersionTaken(NameConflict):
    """A version number is used once.

    Nothing is committed; what has the number is said.

    Next: choose another number, or let `--bump` count.
    """

    code = "E201"


class LostRace(NameConflict):
    """A ref is not what the update expected.

    Nothing moves: another command was first.

    Next: look at `kai reflog`, then run the command again.
    """

    code = "E202"


class LockTimeout(NameConflict):
    """Another process holds the lock for longer than ``lock.wait``.

    Nothing moves.

    Next: run the command again, or wait longer with `-c lock.wait=1m`.
    """

    code = "E203"
    http_status = 423


class NameTaken(NameConflict):
    """An agent of that name exists.

    Nothing is made.

    Next: choose another name; that of an agent is used once.
    """

    code = "E204"


class VersionConflict(NameConflict):
    """Two machines made a version of the same number, and they differ.

    That version alone stays as it is on both sides; both hashes are said, and everything else went through.

    Next: if yours was never pushed, `kai renumber AGENT@vX` gives it another number; then run the command again.
    """

    code = "E205"


class Diverged(NameConflict):
    """`current` moved here, or over there, since both were last seen to agree.

    Nothing moves; where it stands on both sides is said.

    Next: `kai fetch`, look at both with `kai log` and `kai diff`, then roll back to the one that is to be in force and
    run the command again.
    """

    code = "E206"


class WorkspaceError(KaiError):
    """Something about the workspace, the agent, the manifest or the configuration."""

    code = "E300"
    exit_code = 9
    http_status = 422


class NoSuchHome(WorkspaceError):
    """No home here or above.

    Nothing is looked at.

    Next: go to a home, name one with `--home` or `KAI_HOME`, or make one with `kai init`.
    """

    code = "E301"
    http_status = 404


class NoSuchAgent(WorkspaceError):
    """No agent of that name; the nearest names are said.

    Nothing moves.

    Next: take one of those; `kai status` shows all.
    """

    code = "E302"
    http_status = 404


class NoSuchRevision(WorkspaceError):
    """A revision that names nothing; the nearest names are said.

    Nothing moves.

    Next: take one of those; `kai versions AGENT` and `kai reflog AGENT` list more.
    """

    code = "E303"
    http_status = 404


class InvalidName(WorkspaceError):
    """A name, number or revision that is not well-formed.

    Nothing is made or moved.

    Next: write it as the message says.
    """

    code = "E304"


class InvalidManifest(WorkspaceError):
    """``kai.yaml`` is not well-formed; file, line and nearest key are said.

    What needs the manifest is not done.

    Next: mend that line.
    """

    code = "E305"


class InvalidSettings(WorkspaceError):
    """A configuration file or flag is not well-formed.

    Nothing is done; file and line are said.

    Next: mend that line or flag.
    """

    code = "E306"


class UnsettledFile(WorkspaceError):
    """A file changed each time it was read.

    Nothing is committed: half a file is never recorded.

    Next: try again, name a `quiesce` command in `kai.yaml`, or list the file in `.kaiignore`.
    """

    code = "E307"


class RefusedPath(WorkspaceError):
    """A kind of file, a name or a link that a version cannot hold.

    Nothing is recorded or written.

    Next: move it out of the workspace, or list it in `.kaiignore`.
    """

    code = "E308"


class TooLarge(WorkspaceError):
    """Past a configured limit.

    Nothing is recorded or written; the limit is said.

    Next: raise the limit in `.kai/config.yaml`, or list the path in `.kaiignore`.
    """

    code = "E309"
    http_status = 413


class RefusedWorkspace(WorkspaceError):
    """A directory that must not be an agent's workspace.

    Nothing is made or linked.

    Next: name a directory that holds the agent's own files alone.
    """

    code = "E310"


class UnreadablePath(WorkspaceError):
    """The system does not let this user read a path.

    Nothing is recorded: a version that lacks files is none.

    Next: give this user the right to read it, or list it in `.kaiignore`.
    """

    code = "E311"


class AgentBusy(WorkspaceError):
    """A run holds a lease, or a live database cannot be locked.

    Nothing moves, or nothing runs.

    Next: stop the agent, name a `quiesce` command in `kai.yaml`, or say `--live`.
    """

    code = "E312"
    http_status = 409


class NothingToUndo(WorkspaceError):
    """No move is left to undo or redo.

    Nothing moves.

    Next: see the moves with `kai reflog AGENT`, and go where you want with `kai rollback`.
    """

    code = "E313"
    http_status = 409


class NoSuchPath(WorkspaceError):
    """A path that the version does not hold; the nearest are said.

    Nothing moves.

    Next: take one of those, counted from the top of the workspace.
    """

    code = "E314"
    http_status = 404


class TargetNotEmpty(WorkspaceError):
    """The directory to write to holds something.

    Nothing is written.

    Next: name a directory that is absent or empty.
    """

    code = "E315"
    http_status = 409


class NoVersionYet(WorkspaceError):
    """The agent has no version.

    Nothing is done.

    Next: make the first with `kai commit AGENT`.
    """

    code = "E316"
    http_status = 404


class HomeExists(WorkspaceError):
    """A home is there already.

    It stays as it is.

    Next: use it, or choose another place.
    """

    code = "E317"
    http_status = 409


class NothingToCommit(WorkspaceError):
    """The workspace is what `current` says; a check that said no.

    Nothing is committed.

    Next: nothing to do; `--allow-empty` makes a version all the same.
    """

    code = "E318"
    exit_code = 1
    http_status = 409


class NoEntry(WorkspaceError):
    """Neither the manifest nor the command line says what to run.

    Nothing runs.

    Next: name an `entry` in `kai.yaml`, or a command after `--`.
    """

    code = "E319"


class CommandFailed(WorkspaceError):
    """A command of the manifest (quiesce, resume) failed.

    When `quiesce` failed, nothing moves. When `resume` failed, what was asked is done, and the agent may still be
    paused.

    Next: mend the command in `kai.yaml`; what it printed is said.
    """

    code = "E320"


class MissingSecret(WorkspaceError):
    """A secret file is absent and no source is configured for it.

    Nothing runs.

    Next: write the file, or name a source under `secrets:` in `.kai/local.yaml`.
    """

    code = "E321"


class LinkLost(WorkspaceError):
    """The directory that a workspace is linked to is not there, or is another one than was linked.

    Nothing is read or written: an absent directory is not an empty workspace.

    Next: bring it back (mount it, move it back), or link another with `kai agent link AGENT DIR`.
    """

    code = "E323"
    http_status = 409


class InvalidLayout(WorkspaceError):
    """A tree of version folders contradicts itself, or holds what is no version; file and key are said.

    Nothing is imported, and nothing of the tree is changed.

    Next: correct what is named, or move it away; `kai import --dry-run` says whether all is well.
    """

    code = "E324"


class TransportError(KaiError):
    """A remote could not be reached, broke off, or said what nobody understands.

    What was sent and what was not is said; repeating is safe, and goes on from where it ended.

    Next: look at the connection, then run the command again.
    """

    code = "E401"
    exit_code = 10
    http_status = 502


class NoSuchRemote(TransportError):
    """There is no remote of that name.

    Nothing was sent; the nearest names are said.

    Next: `kai remote list` shows those that there are; `kai remote add NAME URL` makes one.
    """

    code = "E402"
    http_status = 404


class WrongFormat(TransportError):
    """The other side hashes objects with another function than this home.

    Nothing was sent or taken: a hash of the one means nothing to the other.

    Next: use a remote of this home's format; for a git host of the other one, `kai mirror` keeps a re-encoded copy.
    """

    code = "E403"
    http_status = 409


class RefusedByRemote(TransportError):
    """The other side took what was sent and refused to make it count.

    Nothing moved over there, as far as it says; its own words are given.

    Next: do what those words ask for (a smaller file, a right, another branch), then run the command again.
    """

    code = "E404"
    http_status = 403


class RefusedArrival(TransportError):
    """What arrived is not what a home may hold: bytes that are not those of their id, a name that is unsafe, a gap.

    Nothing of it is kept, and nothing moved.

    Next: ask who keeps the other side to run `kai fsck` there; if it is whole, it is no home to trust.
    """

    code = "E405"
    http_status = 422


class ForkedLog(TransportError):
    """The log of a remote does not go on from where this home last saw it.

    Nothing moved. Somebody put back an older copy of that home, or changed its past.

    Next: find out which; `kai remote remove` and `kai remote add` begin anew with what it says now.
    """

    code = "E406"
    http_status = 409


class CredentialsNeeded(TransportError):
    """The other side wants to know who asks, and no credentials were found, or those found were refused.

    Nothing was sent.

    Next: put a token into git's credential helper, `~/.netrc` or KAI_TOKEN, or run the command on a terminal.
    """

    code = "E407"
    http_status = 401


class RefusedUrl(TransportError):
    """A remote's URL has a scheme that is not known, holds a password, or could be taken for an option.

    Nothing was noted or sent.

    Next: use a path, ssh://, https://, http://, git:// or file://, and keep secrets in a credential helper.
    """

    code = "E408"
    http_status = 400


class StorageError(KaiError):
    """The disk, the space on it, or a fault of kaivc itself."""

    code = "E900"
    exit_code = 11


class StorageFailed(StorageError):
    """The system refused a read or a write; the store is unchanged.

    Names are as they were; bytes that nothing names may have been written.

    Next: check permissions and the health of the disk, then run the command again.
    """

    code = "E901"


class NoSpace(StorageError):
    """The disk or the quota is full; the store is unchanged.

    Names are as they were; bytes that nothing names may have been written.

    Next: free some space (`kai gc`, `df -h`, quota), then run the command again.
    """

    code = "E902"
    http_status = 507


class OutcomeUnknown(StorageError):
    """The last sync failed: what was asked may or may not have landed.

    Either all of it happened or nothing did; the op id is said.

    Next: run the command again with that `--op-id`: it happens once.
    """

    code = "E903"


class UnknownFormat(StorageError):
    """Written in a format that this release does not know.

    Nothing is read or written.

    Next: use the release that wrote it, or a newer one.
    """

    code = "E904"


class ReadOnlyHome(StorageError):
    """The home may be read and not written: by this user, or where it is mounted.

    Nothing is written; every command that only reads still works.

    Next: run it as a user who may write there, or on a file system that is not read-only.
    """

    code = "E905"
    http_status = 403


class Collected(StorageError):
    """What was being read expired, and gc has collected it meanwhile; versions never are.

    The answer stops; nothing moved.

    Next: run the command again: it sees the store as it is now.
    """

    code = "E907"
    http_status = 410


class InternalError(StorageError):
    """A fault of kaivc.

    The command stopped where it was; what was committed before stays.

    Next: run it again with `--debug`, and report the traceback.
    """

    code = "E999"


def by_code(code: str) -> type[KaiError] | None:
    """The error of a code, as another process told it; None if this release knows none."""
    todo: list[type[KaiError]] = [KaiError]
    while todo:
        kind = todo.pop()
        if kind.code == code and "code" in vars(kind):
            return kind
        todo += kind.__subclasses__()
    return None


class hit:  # noqa: N801 - read as a function, and entered for every object, so no generator
    """Let a ChecksumMismatch that is raised within say what it hits."""

    def __init__(self, what: str, **facts: object) -> None:
        self._what = what
        self._facts = facts

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ChecksumMismatch):
            said: dict[str, Any] = {**error.facts, **self._facts}
            what = f"{self._what}: {error.what}"
            raise ChecksumMismatch(what, unchanged=error.unchanged, hint=error.hint, **said) from error
