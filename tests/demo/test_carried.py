"""docs/how-to/carry-it-on-a-disk.md and two-machines-by-ssh.md, run as they stand."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import prepared

ROOT = Path(__file__).resolve().parents[2]
SSH = """\
#!/bin/sh
# Stands in for ssh to the machine `office`: what it is told to run there is run here, by a shell.
for word; do last=$word; done
exec sh -c "$(printf '%s' "$last" | sed "s|/srv/agents|$OFFICE|")"
"""


def lines(page: str) -> list[str]:
    """The lines of a page's shell blocks."""
    text = (ROOT / "docs" / "how-to" / page).read_text("utf-8")
    return [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where `agents/` is a home with `summarizer`, and a disk is mounted."""
    prepared.make(tmp_path)
    return tmp_path


def shell(script: str, where: Path, **environ: str) -> str:
    """What a shell printed, which must end well."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=where,
        env={"PATH": path, "HOME": str(where), "KAI_AUTHOR": "Ada <ada@example.org>", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_carried_on_a_disk(place: Path) -> None:
    home = place / "agents"
    (place / "disk").mkdir()
    script = lines("carry-it-on-a-disk.md")
    shell("\n".join(script[:3]), home)
    shell("printf '# more\\n' >> summarizer/workspace/logic.py; kai commit summarizer -m more", home)
    shell("\n".join(script[3:]), home)
    there = shell("kai --home ../copy rev-parse summarizer@current", home)
    assert there == shell("kai rev-parse summarizer@current", home)
    shell("kai --home ../copy fsck", home)


def test_two_machines_by_ssh(place: Path) -> None:
    (place / "office").mkdir()
    (place / "agents").rename(place / "office" / "agents")
    ssh = place / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    config = place / ".config" / "kai" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"ssh:\n  command: {ssh}\n")
    office = str(place / "office" / "agents")
    script = lines("two-machines-by-ssh.md")
    shell("\n".join(script), place, OFFICE=office)
    work = "printf '# more\\n' >> agents/summarizer/workspace/logic.py; kai --home agents commit summarizer -m more"
    shell("\n".join([work, *script[1:]]), place, OFFICE=office)
    ours, theirs = (shell(f"kai --home {it} rev-parse summarizer@current", place) for it in ("agents", "office/agents"))
    assert ours == theirs
