"""What a layer takes is counted however deep it lies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kaivc.sandboxes import copies

DIG = "import os\nfor _ in range(3000): os.mkdir('e'); os.chdir('e')\nopen('x', 'w').write('x' * 5000)"


def test_what_lies_deeper_than_a_path_may_be_long_is_counted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIG], cwd=tmp_path, check=True)
    open_before = len(os.listdir("/proc/self/fd"))
    found = copies.taken((str(tmp_path),), {})
    assert (found.inodes, found.hidden) == (3001, False)
    assert found.size >= 5000
    assert len(os.listdir("/proc/self/fd")) == open_before
    subprocess.run(["rm", "-rf", str(tmp_path / "e")], check=True)
