"""The commands with which a stranger checks an audit: git, sqlite3 and coreutils, and what each prints.

They are run in the home, in one shell, in order; those of an agent first. The page docs/how-to/prove-without-kai.md
goes further: it follows the chain record by record.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping

from kaivc import versions
from kaivc.layout import Layout
from kaivc.manifest import FileClass, Manifest
from kaivc.names import current_ref, tags_prefix
from kaivc.report import Recheck
from kaivc.storage.catalog import AgentRow
from kaivc.storage.gitobjects import Tag
from kaivc.trees import Files
from kaivc.versions import AgentVersion

MOST = 64
"""Paths that a command names."""
_DEFAULTS = {FileClass.STATE: ("state.json", "state/"), FileClass.CONFIG: ("config.yaml",)}
_PLAIN = "-c core.fileMode=true -c core.symlinks=true -c core.autocrlf=false -c core.ignoreCase=false"
_ATTRIBUTES = "* -text -ident -filter -working-tree-encoding -eol"


def agent(name: str, refs: Mapping[str, bytes], head: str) -> Iterator[Recheck]:
    """Of an agent: its versions written out for git, every object re-hashed, all names, the head of its chain."""
    yield Recheck("a place for copies", "proof=$(mktemp -d)", "")
    if current_ref(name) in refs:
        git = _git(name)
        export = f'kai export {name} --git "$proof/{name}.git" > "$proof/log" && mkdir -p "$proof/{name}.git/info"'
        yield Recheck("its versions for git, which takes no bytes on trust", export, "")
        attributes = f"echo '{_ATTRIBUTES}' > \"$proof/{name}.git/info/attributes\""
        yield Recheck("no conversions when git reads files", attributes, "")
        yield Recheck("every object is what its id says", f"{git} fsck --full --strict --no-dangling 2>&1", "")
        served = {f"refs/tags/{ref.removeprefix(tags_prefix(name))}": oid for ref, oid in refs.items() if _is_tag(ref)}
        served["refs/heads/current"] = refs[current_ref(name)]
        listed = "\n".join(f"{oid.hex()} {ref}" for ref, oid in sorted(served.items()))
        yield Recheck("every name", f"{git} for-each-ref --format='%(objectname) %(refname)'", listed)
    query = f"SELECT op_seq || ':' || lower(hex(op_head)) FROM agents WHERE name = '{name}'"  # noqa: S608 - text to be shown
    yield Recheck("the head of the chain, as the catalog has it", _sqlite(query), head)


def op(layout: Layout, row: AgentRow, seq: int, digest: str, at: tuple[str, int, int] | None) -> Recheck:
    """Of one op record: its bytes, hashed.

    ``at`` is the pack, the offset and the length of its bytes; None while the catalog holds them.
    """
    if at is None:
        query = f"SELECT writefile('$proof/op', payload) FROM ops WHERE agent = {row.id} AND seq = {seq}"  # noqa: S608 - text to be shown
        command = f'{_sqlite(query)} > "$proof/log"; sha256sum < "$proof/op"'
    else:
        pack, offset, length = at
        path = os.path.relpath(layout.pack(row.name, pack), layout.root)
        command = f"tail -c +{offset + 1} {path} | head -c {length} | sha256sum"
    return Recheck(f"op record {seq}", command, f"{digest}  -")


def version(
    it: AgentVersion, tag_id: str, tag: Tag, files: Files, manifest: Manifest, *, view: bool
) -> Iterator[Recheck]:
    """Of a version: tag, commit, tree, parent, date, author, checksums, count of files, and its view."""
    git, name = _git(it.agent), it.tag
    yield Recheck("the tag's id", f"{git} cat-file tag {name} | {git} hash-object -t tag --stdin", tag_id)
    says = f"object {it.commit}\ntype commit\ntag {tag.name}\ntagger {tag.who} {tag.time} +0000"
    yield Recheck("what the tag says", f"{git} cat-file tag {name} | head -n 4", says)
    commit = f"{git} cat-file commit {name} | {git} hash-object -t commit --stdin"
    yield Recheck("the commit's id", commit, it.commit)
    yield Recheck("the tree's id", f"{git} rev-parse '{name}^{{tree}}'", it.tree)
    yield Recheck("the parent", f"{git} log -1 --format=%P {name}", it.parent_commit or "")
    when = f"{git} log -1 --no-mailmap --date=format:%Y-%m-%dT%H:%M:%SZ --format='%cd %an <%ae>' {name}"
    yield Recheck("when, and who", when, f"{it.created} {it.author}")
    stated = {FileClass.STATE: it.agent_state_checksum, FileClass.CONFIG: it.config_checksum}
    for kind, checksum in stated.items():
        key = f"Kai-{kind.value.capitalize()}-Checksum"
        command = f"{git} log -1 --format='%(trailers:key={key},valueonly,separator=)' {name}"
        yield Recheck(f"the checksum of {kind.value}, as stated", command, checksum)
        paths = _paths(files, manifest, kind)
        if paths is not None:
            found = versions.checksum(files, manifest, kind).removeprefix("sha256:")
            yield Recheck(f"the checksum of {kind.value}, recomputed", _sum(git, name, paths), f"{found}  -")
    count = f"{git} ls-tree -r -z --full-tree {name} | tr -cd '\\0' | wc -c"
    yield Recheck("the number of files", count, str(len(files)))
    if view:
        yield Recheck("the tree that the files of the view make", _rebuilt(it.agent, name), it.tree)


def _git(agent: str) -> str:
    return f'git -C "$proof/{agent}.git"'


def _sqlite(query: str) -> str:
    return f'sqlite3 -readonly .kai/catalog.sqlite "{query}"'


def _is_tag(ref: str) -> bool:
    return ref.startswith("refs/tags/")


def _sum(git: str, name: str, paths: Iterable[str]) -> str:
    words = " ".join(map(shlex.quote, paths))
    return f"{git} ls-tree -r -z --full-tree {name} {words} | sha256sum" if words else "sha256sum < /dev/null"


def _rebuilt(agent: str, name: str) -> str:
    """Let git hash the files of the view, and make a tree of them."""
    index = f'GIT_INDEX_FILE="$proof/{agent}-{name}.index"'
    over = f'{index} git --git-dir="$proof/{agent}.git" --work-tree={agent}/versions/{name} {_PLAIN}'
    listed = f"{_git(agent)} ls-tree -r -z --full-tree --name-only {name}"
    return f"{listed} | {over} update-index --add --remove -z --stdin; {over} write-tree"


def _paths(files: Files, manifest: Manifest, kind: FileClass) -> tuple[str, ...] | None:
    """What to ask ``git ls-tree`` for to have the files of a class; None where that cannot be said in a few words."""
    wanted = [path for path in files if manifest.file_class(path) is kind]
    if not wanted:
        return ()
    usual = _DEFAULTS[kind]
    if set(wanted) == {path for path in files if _is_below(path, usual)}:
        return usual
    try:
        named = tuple(path.decode() for path in sorted(wanted))
    except UnicodeDecodeError:
        return None
    return named if len(named) <= MOST and all(map(_is_sayable, named)) else None


def _is_sayable(path: str) -> bool:
    """Whether a shell and git take a path as it stands; a colon begins git's own words."""
    return path.isprintable() and not path.startswith((":", "-"))


def _is_below(path: bytes, usual: tuple[str, ...]) -> bool:
    text = os.fsdecode(path)
    return any(text.startswith(it) if it.endswith("/") else text == it for it in usual)
