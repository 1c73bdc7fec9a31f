"""Runs jobs in a sandbox and prints what came of them; a program of its own, so that any uid can run it.

Arguments: the kind, a directory that is ours, and the jobs in JSON: by name, argv, limits that differ, variables, and
whether to run as two at once.
"""

import base64
import json
import os
import stat
import sys
import time

from kaivc.errors import KaiError
from kaivc.sandboxes import KINDS
from kaivc.sandboxes.base import Form, Job, Limits

LIMITS = {
    "memory": 256 << 20,
    "processes": 32,
    "open_files": 128,
    "written": 48 << 20,
    "inodes": 400,
    "output": 1 << 20,
    "seconds": 20.0,
}
FILES = {"a.txt": b"hello\n", "gone.txt": b"x", "d/x": b"one", "d/deep/y": b"two", "run.sh": b"#!/bin/sh\necho ran\n"}
LARGE = "large.bin"


def make_lower(lower):
    """As a view is: closed to all but its owner, and to him for writing."""
    for path, data in FILES.items():
        os.makedirs(os.path.dirname(f"{lower}/{path}"), exist_ok=True)
        with open(f"{lower}/{path}", "wb") as file:
            file.write(data)
        os.chmod(f"{lower}/{path}", 0o500 if path.endswith(".sh") else 0o400)
    with open(f"{lower}/{LARGE}", "wb") as file:
        file.truncate(8 << 20)
    os.symlink("a.txt", f"{lower}/link")
    for directory in (f"{lower}/d/deep", f"{lower}/d", lower):
        os.chmod(directory, 0o500)


def seen(top):
    """Everything below a directory: its kind and permissions, and its contents where it is a small file."""
    found = {}
    for directory, names, files in os.walk(top):
        for name in names + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            what = stat.filemode(status.st_mode)
            if stat.S_ISREG(status.st_mode) and status.st_size < 4096:
                with open(path, "rb") as file:
                    what += " " + file.read().decode(errors="replace")
            elif stat.S_ISLNK(status.st_mode):
                what += " " + os.readlink(path)
            elif stat.S_ISCHR(status.st_mode):
                what += f" {status.st_rdev}"
            found[os.path.relpath(path, top)] = what
    return found


def changed(lower, ended):
    """The layer as changes: by path, what is there now; None for what went."""
    before, after = seen(lower), seen(ended.top)
    if ended.form is Form.OVERLAY:
        return {path: None if what.startswith("c") and what.endswith(" 0") else what for path, what in after.items()}

    def same(path, what):
        # A copy has modes of its own, and ours may be those of a view.
        return path in before and (before[path][0], before[path][10:]) == (what[0], what[10:])

    changes = {path: what for path, what in after.items() if not same(path, what)}
    return changes | {path: None for path in before if path not in after}


def mounts_at(place):
    """How many mounts have to do with a directory; others of the machine come and go."""
    with open("/proc/self/mountinfo") as file:
        return sum(place in line for line in file)


def run(kind, place, argv, limits, environ):
    sandbox = KINDS[kind]()()
    lower, layer = f"{place}/lower", f"{place}/layer"
    os.makedirs(lower)
    os.mkdir(layer, 0o700)
    make_lower(lower)
    before, mounts = seen(lower), mounts_at(place)
    output: list[bytes] = []
    job = Job(tuple(argv), environ, lower, layer, Limits(**LIMITS | limits))
    began = time.monotonic()
    try:
        ended = sandbox.run(job, output.append)
    except KaiError as error:
        return {"error": error.what, "code": error.code, "guard": error.facts.get("guard")}
    whole = time.monotonic() - began
    return {
        "by": ended.by,
        "exit_code": ended.exit_code,
        "seconds": ended.seconds,
        "whole": whole,
        "cpu_seconds": ended.cpu_seconds,
        "peak_memory": ended.peak_memory,
        "left_running": ended.left_running,
        "output": base64.b64encode(b"".join(output)).decode(),
        "changes": changed(lower, ended),
        "lower_same": seen(lower) == before,
        "mounts_more": mounts_at(place) - mounts,
        "fds": len(os.listdir("/proc/self/fd")),
    }


def both(kind, place, argv, limits, environ):
    """Two at once, each in a process of its own."""
    pipes = []
    for which in ("one", "two"):
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.close(read_end)
            os.mkdir(f"{place}/{which}")
            result = run(kind, f"{place}/{which}", [*argv, which], limits, environ)
            with open(write_end, "w") as pipe:
                json.dump(result, pipe)
            os._exit(0)
        os.close(write_end)
        pipes.append(read_end)
    results = []
    for it in pipes:
        with open(it) as pipe:
            results.append(json.load(pipe))
        os.wait()
    return results


def main():
    kind, base, jobs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    os.umask(0o022)
    sandbox = KINDS[kind]()()
    ability = sandbox.ability()
    results = {"ability": {"level": ability.level, "why": ability.why, "notes": ability.notes}}
    if ability.level is not None:
        # What a careless door might hand on.
        os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
        for name, job in jobs.items():
            place = f"{base}/{name}"
            os.mkdir(place, 0o700)
            go = both if job.get("twice") else run
            results[name] = go(kind, place, job["argv"], job.get("limits", {}), job.get("environ", {}))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
