"""Many clients push to one home and pull from it at once: nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kaivc import api
from kaivc.errors import Diverged, LostRace
from kaivc.storage import oplog
from kaivc.storage.chain import read_op
from kaivc.storage.journal import GENESIS
from tests.conftest import ROOT
from tests.engine.homes import commit, make_home, open_home, read, remove
from tests.remotes.carriers import CARRIERS, Link

SEED = 11
FILES = {"logic.py": b"0\n", "state.json": b"{}", "noise": random.Random(1).randbytes(100_000)}
AGENTS = 3
"""So few that clients meet all the time."""
PATIENCE = 60
READY = b"ready\n"


def client(number: int, near: str, url: str, environ: dict[str, str], seconds: float) -> dict[str, Any]:
    """Commit, push and pull until it is time; what was acknowledged, and what was said otherwise."""
    chance = random.Random(f"{SEED} {number}")
    link = Link(Path(), url, environ=environ, flags={"lock.wait": "30s"})
    acknowledged: list[tuple[str, str, str]] = []
    said: Counter[str] = Counter()
    slowest, numbers = 0.0, count()
    with closing(link.open(Path(near))) as home:
        until = time.time() + seconds
        while time.time() < until:
            agent = home.agent(f"agent-{chance.randrange(AGENTS)}")
            began = time.monotonic()
            try:
                home.pull(agent.name)
                (agent.workspace / "state.json").write_text(json.dumps({"who": number, "n": chance.random()}))
                made = agent.commit(version=f"2.{number}.{next(numbers)}", allow_empty=True)
                said["commits"] += 1
                pushed = home.push(agent.name)
                acknowledged += ((agent.name, it.ref, it.new or "") for it in pushed.refs)
                said["pushes"] += pushed.applied
                assert made.tag in {it.ref.rsplit("/", 1)[1] for it in pushed.refs}
            except (Diverged, LostRace) as error:
                said[type(error).__name__] += 1
                follow(home, agent.name)
            slowest = max(slowest, time.monotonic() - began)
    return {"acknowledged": acknowledged, "said": said, "slowest": slowest}


def follow(home: api.Home, agent: str) -> None:
    """What a user does who came too late, as the error says it: take what is in force over there; own versions stay."""
    try:
        home.pull(agent)
    except Diverged as error:
        home.agent(agent).rollback(str(error.facts["there"])[:16])


def run(far: Path, carrier: str, clients: int, seconds: float, root: Path) -> tuple[list[dict[str, Any]], float]:
    """What each client reports."""
    way = CARRIERS[carrier]
    assert way is not None
    with way(far) as link:
        for number in range(clients):
            link.clone(root / f"near-{number}").close()
        words = [link.url, json.dumps(link.environ), str(seconds)]
        argv = [sys.executable, "-m", "tests.remotes.test_clients"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        running: list[subprocess.Popen[bytes]] = [
            subprocess.Popen([*argv, str(number), str(root / f"near-{number}"), *words], cwd=ROOT, **pipes)  # type: ignore[call-overload]
            for number in range(clients)
        ]
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == READY, process.communicate()[1].decode()[-3000:]
        began = time.time()
        for process in running:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        reports = []
        for process in running:
            out, err = process.communicate(timeout=seconds + PATIENCE + 4 * clients)
            assert process.returncode == 0, err.decode()[-3000:]
            reports.append(json.loads(out))
        return reports, time.time() - began


@pytest.mark.parametrize("carrier", ["path", "http"])
@pytest.mark.parametrize(
    ("clients", "seconds"), [(8, 5), pytest.param(32, 60, marks=pytest.mark.slow)], ids=["8", "32"]
)
def test_no_update_is_lost(carrier: str, clients: int, seconds: int, tmp_path: Path) -> None:
    far = tmp_path / "far"
    names = [f"agent-{number}" for number in range(AGENTS)]
    with closing(make_home(far)) as home:
        for name in names:
            commit(home.new(name), FILES)
    reports, took = run(far, carrier, clients, seconds, tmp_path)
    said: Counter[str] = Counter()
    for it in reports:
        said.update(it["said"])
    slowest = max(it["slowest"] for it in reports)
    print(
        f"{clients} clients over {carrier} in {took:.1f} s: {dict(said)}, slowest round {slowest:.2f} s (seed {SEED})"
    )
    acknowledged = [tuple(update) for it in reports for update in it["acknowledged"]]
    assert said["pushes"] >= clients / 2
    with closing(open_home(far)) as home:
        found = home.fsck()
        assert found.ok, found.all
        for name in names:
            check_agent(home, name, [(ref, new) for agent, ref, new in acknowledged if agent == name])
    with closing(open_home(tmp_path / "near-0")) as near:
        assert near.fsck().ok
    for path in tmp_path.glob("near-*"):
        remove(path)


def check_agent(home: api.Home, name: str, acknowledged: list[tuple[str, str]]) -> None:
    """Each version is there as it was acknowledged, each move of `current` was made, and the log is one chain."""
    repo = home.opened.repository(name)
    refs = repo.refs("refs/")
    current = f"refs/heads/{name}/current"
    for ref, new in acknowledged:
        if ref != current:
            assert refs[ref].hex() == new, f"{ref} was acknowledged"  # type: ignore[index]
    digest, seq = GENESIS, 0
    for record in oplog.records(repo.store, 0):
        op = read_op(record)
        assert (op.prev, op.seq) == (digest, seq + 1)
        digest, seq = op.digest, op.seq
    row = repo.row()
    assert (seq, digest) == (row.op_seq, row.op_head)
    moves = list(reversed(home.agent(name).reflog(limit=None).entries))
    assert [it.old for it in moves[1:]] == [it.new for it in moves[:-1]], "each move began where the one before ended"
    made = Counter(it.new.hex() for it in moves if it.new is not None)
    wanted = Counter(new for ref, new in acknowledged if ref == current)
    assert wanted <= made, "a move that was acknowledged was made"
    assert moves[-1].new == repo.current
    files = read(home.agent(name).workspace)
    assert files["noise"] == FILES["noise"]


if __name__ == "__main__":
    _, number, near, url, environ, seconds = sys.argv
    os.write(1, READY)
    sys.stdin.readline()
    told = client(int(number), near, url, json.loads(environ), float(seconds))
    os.write(1, json.dumps(told).encode())
