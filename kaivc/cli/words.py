"""The commands, their arguments and options, for a shell's completion, which cannot wait for a parser.

`make reference` writes this file from the commands; a test compares them.
"""

from __future__ import annotations

Options = dict[str, tuple[str, str]]
"""By name: the kind of its value, empty for a flag, and its help."""

# fmt: off
# ruff: noqa: E501, Q003
EVERYWHERE: Options = {
    "--home": ("dirs", "The home, or a directory in it. [env: KAI_HOME; else the working directory]"),
    "--json": ("", "Print one JSON document."),
    "--debug": ("", "Show tracebacks."),
    "-c": ("setting", "A setting, as `lock.wait=10s`; may be repeated."),
    "-h": ("", "Tell what it does and takes."),
    "--help": ("", "Tell what it does and takes."),
}

SETTINGS: tuple[str, ...] = ("author", "backups.keep", "backups.max_age", "backups.max_bytes", "chunks.threshold", "compress.level", "head", "isolation.commit_changes", "isolation.enable", "isolation.env", "isolation.inodes", "isolation.memory", "isolation.open_files", "isolation.output", "isolation.processes", "isolation.require", "isolation.rollback_on_error", "isolation.temp_dir", "isolation.time", "isolation.written", "limits.max_file", "limits.max_files", "lock.wait", "packs.seal_at", "read.tries", "reflog.expire", "snapshots.expire", "ssh.command", "ssh.kai", "verify.full_every", "views.keep", "views.max_bytes")

GROUPS: dict[str, str] = {
    "snapshot": "Test a version in a layer; list, show, promote, drop snapshots.",
    "remote": "Add, list, remove and rename remotes: other homes, git repositories, bundles.",
    "bundle": "Put agents into a file, look at it, take in what it holds.",
    "token": "Make, list and revoke tokens for `kai serve`.",
    "role": "Grant, list and revoke roles of users of this machine.",
    "agent": "List, rename, remove and link agents.",
}

COMMANDS: dict[str, tuple[str, tuple[str, ...], Options]] = {
    "init": (
        "Make a home: a folder of agents.",
        ("dirs",),
        {
            "--object-format": ("=sha256|sha1", "What ids are made with, for good; every git host takes sha1."),
            "--shared": ("=group", "Let the group read and write the home."),
        },
    ),
    "new": (
        "Make an agent: empty, of a directory, or a fork of another.",
        ("text",),
        {
            "--from": ("source", "Begin with the versions up to REV of AGENT; or fill its workspace with a copy of DIR."),
            "--link": ("dirs", "Let DIR itself be its workspace."),
        },
    ),
    "import": (
        "Adopt a tree of version folders as an agent.",
        ("dirs",),
        {
            "--layout": ("=folders", "How it is laid out: `folders`."),
            "--name": ("text", "What to call the agent. [default: as DIR is called]"),
            "--author": ("text", "Who made the versions, as \"Name <mail>\"."),
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "commit": (
        "Record the workspace as a version.",
        ("agent",),
        {
            "--bump": ("=patch|minor|major", "Count from the highest number there is. [default: patch]"),
            "--version": ("text", "The number itself."),
            "-m": ("text", "What is new; each further one is a paragraph."),
            "--notes": ("text", "What is new; each further one is a paragraph."),
            "--notes-file": ("files", "Read the notes from FILE; `-` is stdin."),
            "--author": ("text", "Who made it, as \"Name <mail>\"."),
            "--type": ("=manual|auto", "Whether a person or a program asked for it."),
            "--allow-empty": ("", "Make a version even if nothing changed."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "status": (
        "Show how the workspace stands to the version in force.",
        ("agent",),
        {
            "--exit-code": ("", "Exit with 1 if there are differences."),
        },
    ),
    "log": (
        "Show a version and those before it, newest first.",
        ("agentrev",),
        {
            "-n": ("text", "Show at most N."),
            "--oneline": ("", "One line for each version."),
        },
    ),
    "versions": (
        "List all versions of an agent, lowest number first.",
        ("agent",),
        {},
    ),
    "show": (
        "Show what a version says and holds.",
        ("agentrev",),
        {},
    ),
    "diff": (
        "Show what differs between two revisions.",
        ("rev", "rev"),
        {
            "--name-status": ("", "Letters and paths only."),
            "--stat": ("", "Counts of lines only."),
            "--binary": ("", "A patch that `git apply` takes for files of any kind."),
            "-U": ("text", "Lines around a change."),
            "--exit-code": ("", "Exit with 1 if there are differences."),
        },
    ),
    "cat": (
        "Print a file of a version, byte for byte.",
        ("agentrev", "path"),
        {},
    ),
    "ls-tree": (
        "List the files and directories of a version, as git does.",
        ("agentrev", "path..."),
        {
            "-r": ("", "Go into directories."),
            "-t": ("", "Show directories also where they are gone into."),
            "-d": ("", "Show directories only."),
            "-l": ("", "Show the sizes of files."),
            "--long": ("", "Show the sizes of files."),
            "-z": ("", "End lines with NUL, and quote no path."),
            "--name-only": ("", "Show paths only."),
        },
    ),
    "rev-parse": (
        "Print the commit ids of revisions, one on each line.",
        ("agentrev...",),
        {
            "--short": ("", "The first digits only, as many as are needed."),
            "--tree": ("", "The id of the tree, not of the commit."),
            "--tag": ("", "The id of the version's tag, not of the commit."),
        },
    ),
    "rollback": (
        "Go to another version, earlier or later.",
        ("agent",),
        {
            "--to": ("rev", "The version; without it, a terminal offers a choice."),
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--force": ("", "Make a damaged view anew from the store."),
            "--live": ("", "Go on beside a running agent."),
            "--keep": ("path", "Leave a file or directory as it is; may be repeated."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "undo": (
        "Reverse the newest move of `current`.",
        ("agent",),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--live": ("", "Go on beside a running agent."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "redo": (
        "Reverse the newest undo.",
        ("agent",),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--live": ("", "Go on beside a running agent."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "restore": (
        "Bring files of a version into the workspace.",
        ("agent", "path..."),
        {
            "--from": ("rev", "The version to take them from."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--live": ("", "Go on beside a running agent."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "reflog": (
        "Show each move of a ref, newest first.",
        ("agent", "ref"),
        {
            "--all": ("", "The moves of every ref."),
            "-n": ("text", "Show at most N."),
        },
    ),
    "run": (
        "Run the agent in its workspace, and exit with its code.",
        ("agent", "files..."),
        {
            "--dirty": ("", "Run even if logic, config or lock files differ from current."),
        },
    ),
    "snapshot": (
        "Test a version in a throw-away layer, apart from all else.",
        ("agent", "files..."),
        {
            "--test": ("rev", "The version to test."),
            "--state": ("=committed|live", "Whose state it finds: the version's, or the workspace's."),
            "--commit": ("", "If it passes, keep what it changed as a branch."),
        },
    ),
    "snapshot list": (
        "List the snapshots that are kept, and those under test.",
        ("agent",),
        {},
    ),
    "snapshot show": (
        "Show how a test ended, and what it changed.",
        ("snapshot",),
        {},
    ),
    "snapshot promote": (
        "Make a committed snapshot a version, and put it in force.",
        ("snapshot",),
        {
            "--bump": ("=patch|minor|major", "Count from the highest number there is. [default: patch]"),
            "--version": ("text", "The number itself."),
            "-m": ("text", "What is new; each further one is a paragraph."),
            "--notes": ("text", "What is new; each further one is a paragraph."),
            "--author": ("text", "Who made it, as \"Name <mail>\"."),
            "--with-state": ("", "Take the snapshot's state too."),
            "--force": ("", "Even if another version is in force now."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--live": ("", "Go on beside a running agent."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "snapshot drop": (
        "Drop a snapshot: its branch, or the layer that waits.",
        ("snapshot",),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "verify": (
        "Re-hash what versions are made of.",
        ("agentrev",),
        {
            "--workspace": ("", "Also compare the workspace's logic, config and lock files."),
        },
    ),
    "fsck": (
        "Check everything that a home holds; repair it.",
        ("agent",),
        {
            "--repair": ("", "Make right what can be; what is in the way goes to .kai/quarantine."),
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "audit": (
        "Recompute what versions are made of, and report what differs.",
        ("agentrev",),
        {
            "--html": ("", "The report as an HTML page, to the file or to stdout."),
            "--output": ("files", "Write the report to a file; `-` is stdout."),
            "-o": ("files", "Write the report to a file; `-` is stdout."),
            "--expect-head": ("text", "A head that an earlier audit gave: the log must hold it."),
            "--against": ("remote", "Compare with a remote instead, hash by hash; nothing is moved."),
        },
    ),
    "checkout": (
        "Write the files of a version to a directory of their own.",
        ("agentrev", "dirs"),
        {},
    ),
    "export": (
        "Write all versions of an agent as a bare git repository.",
        ("agent",),
        {
            "--git": ("dirs", "Where to: absent or empty."),
        },
    ),
    "gc": (
        "Give back the space of what no name leads to any more.",
        ("agent",),
        {
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "bundle create": (
        "Put agents into one file, for a disk or a mail.",
        ("files", "text..."),
        {
            "--since": ("rev", "Leave out what is behind a revision, which the other side has."),
        },
    ),
    "bundle verify": (
        "Compare every byte of a bundle, and say what it holds.",
        ("files",),
        {},
    ),
    "bundle unbundle": (
        "Take in what a bundle holds, as a pull would.",
        ("files", "text..."),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--live": ("", "Go on beside a running agent."),
        },
    ),
    "renumber": (
        "Give a version that was never pushed another number.",
        ("agentrev",),
        {
            "--to": ("text", "The number to give it."),
            "--bump": ("text", "Count from the highest number: major, minor or patch."),
            "--reason": ("text", "Why; it goes into the log."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "doctor": (
        "Check what this machine and this home give.",
        (),
        {},
    ),
    "completion": (
        "Print what lets a shell complete the words of kai.",
        ("=bash|zsh|fish",),
        {},
    ),
    "remote add": (
        "Note where another home, a git repository or a bundle is.",
        ("text", "dirs"),
        {},
    ),
    "remote list": (
        "List the remotes of a home.",
        (),
        {},
    ),
    "remote remove": (
        "Forget a remote; versions that came from it stay.",
        ("remote",),
        {},
    ),
    "remote rename": (
        "Give a remote another name; all that is known of it goes along.",
        ("remote", "text"),
        {},
    ),
    "clone": (
        "Make a home of the agents of another, with all their versions.",
        ("dirs", "dirs"),
        {
            "--agent": ("agent", "Only this agent; may be repeated."),
            "--remote": ("text", "What to call URL there."),
        },
    ),
    "fetch": (
        "Bring what a remote has, and note where its refs are.",
        ("remote",),
        {
            "--agent": ("agent", "Only this agent; may be repeated."),
        },
    ),
    "pull": (
        "Fetch an agent, adopt its new versions, and follow `current`.",
        ("agent", "remote"),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--live": ("", "Go on beside a running agent."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "push": (
        "Send an agent's versions to a remote; its `current` follows.",
        ("agent", "remote"),
        {
            "--ref": ("ref", "Send a snapshot or a backup too, as `snapshots/ID`; may be repeated."),
            "--delete": ("ref", "Remove a snapshot over there; may be repeated."),
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
            "--op-id": ("text", "A name for this operation; repeated with it, it happens once."),
        },
    ),
    "mirror": (
        "Keep a re-encoded copy at a git host of the other hash format.",
        ("remote", "text..."),
        {
            "--object-format": ("text", "How the host hashes: sha1 or sha256."),
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "serve": (
        "Serve the home to other machines: over HTTP, or over pipes.",
        (),
        {
            "--listen": ("text", "Where to listen; port 0 takes a free one."),
            "--tls-cert": ("files", "The certificate with its chain, PEM: speak TLS."),
            "--tls-key": ("files", "Its key, PEM; in the same file unless said."),
            "--anonymous": ("=viewer", "Let whoever shows no token read all agents."),
            "--access-log": ("files", "One JSON line for each request; stderr unless said."),
            "--trusted-proxy": ("text", "The proxy whose X-Forwarded-For says who asks."),
            "--max-parcel": ("text", "The most that one push may bring, as 500MiB."),
            "--max-requests": ("text", "So many are worked on at once, half for one token."),
            "--stdio": ("", "Answer over stdin and stdout: what ssh starts at the far end."),
        },
    ),
    "token add": (
        "Make a token for `kai serve`. It is shown this once.",
        ("text",),
        {
            "--role": ("=viewer|tester|operator|maintainer|admin", "viewer, tester, operator, maintainer or admin."),
            "--agents": ("agent", "Over these, as `billing-*`; all unless said. May be repeated."),
            "--expires": ("text", "For how long it holds, as 30d; `never` for good."),
            "--actor": ("text", "Whom the log names for it: \"Name <mail>\"."),
        },
    ),
    "token list": (
        "List the tokens of a home, and what each may.",
        (),
        {},
    ),
    "token revoke": (
        "Take a token back: the next request that shows it is refused.",
        ("text",),
        {},
    ),
    "role grant": (
        "Give a user of this machine a role in this home.",
        ("text", "=viewer|tester|operator|maintainer|admin"),
        {
            "--agents": ("agent", "Over these, as `billing-*`; all unless said. May be repeated."),
        },
    ),
    "role list": (
        "List the roles of users of this machine.",
        (),
        {},
    ),
    "role revoke": (
        "Take roles from a user of this machine.",
        ("text", "=viewer|tester|operator|maintainer|admin"),
        {},
    ),
    "agent list": (
        "List the agents of a home.",
        (),
        {
            "--all": ("", "Those too that were removed."),
        },
    ),
    "agent rename": (
        "Give an agent another name; nobody else may have the old one.",
        ("agent", "text"),
        {
            "--reason": ("text", "Why; it goes into the log."),
        },
    ),
    "agent remove": (
        "Remove an agent; its versions can still be read and forked.",
        ("agent",),
        {
            "--reason": ("text", "Why; it goes into the log."),
            "--dry-run": ("", "Say what would happen; do nothing."),
        },
    ),
    "agent link": (
        "Tell where a linked workspace lies now.",
        ("agent", "dirs"),
        {},
    ),
}
