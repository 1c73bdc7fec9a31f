"""Fuzz some targets: ``python -m tests.faults.fuzz.run RUNS SEED WORK TARGET...``.

libFuzzer ends a process at its first crash, and never gives control back: so each target has a process of its own,
forked from this one, for it takes seconds to instrument kaivc. WORK/TARGET gets what libFuzzer said, new inputs and a
crasher, if there is one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kaivc"], enable_loader_override=False):
    from tests.faults.fuzz.targets import judge

CORPUS = Path(__file__).parent / "corpus"
MAX_LEN = 2048


def fuzz(target: str, runs: str, seed: str, work: Path) -> None:
    """Fuzz one target from the saved corpus; never returns."""
    work.mkdir(parents=True)
    (work / "new").mkdir()
    log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    options = {
        "runs": runs,
        "seed": seed,
        "max_len": MAX_LEN,
        "timeout": 20,
        "rss_limit_mb": 2048,
        "print_final_stats": 1,
        "artifact_prefix": f"{work}/crash-",
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(work / "new"), str(CORPUS / target)], lambda data: judge(target, data))
    atheris.Fuzz()


def main() -> None:
    """Fuzz the targets one after another; the exit code is that of none that failed."""
    runs, seed, work, *targets = sys.argv[1:]
    failed = 0
    for target in targets:
        pid = os.fork()
        if pid == 0:
            fuzz(target, runs, seed, Path(work) / target)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        (Path(work) / target / "code").write_text(str(code))
        failed += bool(code)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
