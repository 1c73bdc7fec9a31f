"""docs/how-to/push-to-a-git-host.md, run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.prepared import FIRST
from tests.conftest import ROOT
from tests.engine.homes import read, write
from tests.remotes.githosts import refs, require_clean

PAGE = ROOT / "docs" / "how-to" / "push-to-a-git-host.md"


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "kai").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m kaivc "$@"\n')
    (tools / "kai").chmod(0o755)
    (tmp_path / "my-agent").mkdir()
    write(tmp_path / "my-agent", FIRST)
    hub = tmp_path / "git"
    script = "set -eu\n" + "\n".join(blocks).replace("/srv/git", str(hub))
    environ = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KAI_AUTHOR": "Ann <ann@example.org>"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("summarizer", "copy"):
        assert set(refs(hub / f"{name}.git")) == {"refs/heads/current", "refs/tags/v1.0.0"}
        require_clean(hub / f"{name}.git")
    assert {name: data for name, data in read(tmp_path / "plain").items() if not name.startswith(".git/")} == FIRST
    assert re.search(r"^Kai-Origin: sha256:[0-9a-f]{64}$", done.stdout, re.MULTILINE)
