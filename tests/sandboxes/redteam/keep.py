"""Plants what should not be kept: each planter is tested with --commit, in one kind of sandbox, in a home of its own.

A program, so that any uid can run it; prints in JSON what became of each. Arguments: the kind, a directory that is
ours, and names of planters.
"""

import json
import os
import sys
import time
from contextlib import closing
from typing import Any

import kaivc
from kaivc import sandboxes
from kaivc.errors import KaiError
from kaivc.sandboxes import KINDS

HERE = os.path.dirname(os.path.abspath(__file__))
FILES = {
    "kai.yaml": b"check: [sh, -c, 'cat state.json']\n",
    "logic.py": b"print(1)\n",
    "state.json": b"{}\n",
    "d/below": b"seen\n",
}


def main():
    kind, base, names = sys.argv[1], sys.argv[2], sys.argv[3:]
    os.umask(0o022)
    sandbox = KINDS[kind]()()
    ability = sandbox.ability()
    sandboxes.chosen = lambda require: (sandbox, ability)
    flags = {"isolation.temp_dir": base + "/temp", "isolation.written": "33554432", "isolation.require": "partial"}
    environ = {"KAI_AUTHOR": "Ann Example <ann@example.org>", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    kaivc.init(base + "/home", environ=environ).close()
    found: dict[str, Any] = {"ability": ability.level}
    with closing(kaivc.open(base + "/home", environ=environ | {"KAI_SECRET": "x"}, flags=flags)) as home:
        agent = home.new("bot")
        workspace = base + "/home/bot/workspace"
        for name, data in FILES.items():
            os.makedirs(os.path.dirname(f"{workspace}/{name}"), exist_ok=True)
            with open(f"{workspace}/{name}", "wb") as file:
                file.write(data)
        for name in names:
            with open(f"{workspace}/{name}.plant", "wb") as file, open(f"{HERE}/plants/{name}.py", "rb") as source:
                file.write(source.read())
        agent.commit(bump="minor")
        for name in names:
            began = time.monotonic()
            try:
                done = agent.snapshot_test(
                    "current", "/usr/bin/python3", "-S", "-B", name + ".plant", commit=True, say=lambda _: None
                )
            except KaiError as error:
                found[name] = {"error": error.code, "what": error.what}
                continue
            found[name] = {
                "status": done.status,
                "id": done.id,
                "commit": done.commit,
                "problem": done.problem,
                "refusals": done.refusals,
                "changes": {os.fsdecode(it.path): it.status for it in done.changes},
                "left": done.left_running,
                "output": done.output.decode(errors="replace")[-300:],
                "seconds": time.monotonic() - began,
            }
        if "manifest_loosened" in names:
            rev = "snapshots/" + found["manifest_loosened"]["id"]
            try:
                found["loosened"] = agent.snapshot_test(rev, "env").output.decode()
            except KaiError as error:
                found["loosened"] = error.what
        found["below"] = b"".join(agent.cat("d/below", "current").stream()).decode()
        found["fsck"] = home.fsck().ok
    place = f"{base}/temp/{os.geteuid()}"
    found["scratch"] = sorted(set(os.listdir(place)) - {".kai-scratch"})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
