"""Write the files of a version to a directory of their own."""

from __future__ import annotations

import os

from kaivc import materialise, retention, revisions, trees
from kaivc.dirtree import DirTree
from kaivc.errors import TargetNotEmpty
from kaivc.records import dataclass
from kaivc.repository import Repository
from kaivc.roots import refuse_root
from kaivc.versions import AgentVersion


@dataclass(frozen=True)
class CheckedOut:
    """A directory that holds a version's files."""

    agent: str
    version: str
    commit: str
    path: str
    files: int


def checkout(repo: Repository, rev: str, directory: str) -> CheckedOut:
    """Write the files of ``rev``, each re-hashed, to ``directory``: absent or empty, and whole or not there at all.

    TargetNotEmpty, RefusedWorkspace, ChecksumMismatch otherwise.
    """
    version = revisions.resolve(repo, rev)
    with retention.reading(repo, version):
        return _checkout(repo, version, directory)


def _checkout(repo: Repository, version: AgentVersion, directory: str) -> CheckedOut:
    files = trees.flatten(repo.store, version.tree_oid)
    materialise.check_tree_links(repo.store, files, backup=version.is_backup)
    target = os.path.abspath(directory)
    refuse_root(directory, repo.layout, repo.home.environ, "written to")
    if os.path.lexists(target) and (not os.path.isdir(target) or os.path.islink(target) or os.listdir(target)):
        raise TargetNotEmpty(
            f"{target} is not an empty directory",
            unchanged="nothing was written",
            hint="name a new one",
            path=target,
        )
    vfs = repo.vfs
    temporary = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{repo.new_op_id()}")
    vfs.make_dirs(os.path.dirname(target), 0o777)
    vfs.make_dir(temporary, 0o755)
    try:
        with DirTree(vfs, temporary, 0o755) as tree:
            for number, (path, entry) in enumerate(materialise.in_store_order(repo.store, files)):
                repo.home.progress("writing", number, len(files))
                materialise.write_file(repo.store, tree, path, entry, materialise.plain_mode(entry))
        vfs.rename(temporary, target)
    except BaseException:
        vfs.remove_tree(temporary)
        raise
    return CheckedOut(repo.name, version.tag, version.commit, target, len(files))
