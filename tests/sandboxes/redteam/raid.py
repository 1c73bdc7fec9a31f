"""Runs the attempts in one kind of sandbox, or bare, and prints in JSON what is seen of them from outside.

A program, so that any uid can run it. Arguments: the kind, a directory that is ours, and a document: ``targets`` for
the attempts, and ``jobs`` by name, each with ``argv`` and the limits that differ.
"""

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
LIMITS = {
    "memory": 256 << 20,
    "processes": 32,
    "open_files": 128,
    "written": 32 << 20,
    "inodes": 1000,
    "output": 1 << 20,
    "seconds": 60.0,
}
FILES = ("state.txt", "mapped.txt", "held.txt", "cut.txt", "flags.txt", "attributes.txt", "d/x", "seen/below")


def make(lower, targets, *, closed):
    """A version as a view holds it, with the attempts in it."""
    shutil.copytree(HERE + "/attempts", lower + "/attempts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(HERE + "/hogs", lower + "/hogs", ignore=shutil.ignore_patterns("__pycache__"))
    with open(lower + "/attempts/targets.json", "w") as file:
        json.dump(targets, file)
    for name in FILES:
        os.makedirs(os.path.dirname(f"{lower}/{name}"), exist_ok=True)
        with open(f"{lower}/{name}", "w") as file:
            file.write("of the version\n" * 100)
    for at, _, names in os.walk(lower, topdown=False):
        for name in names if closed else ():
            os.chmod(f"{at}/{name}", 0o400)
        os.chmod(at, 0o500 if closed else 0o700)


def digest(top):
    """Of all that lies below a directory."""
    found = hashlib.sha256()
    for at, dirs, names in os.walk(top):
        dirs.sort()
        for name in sorted(dirs + names):
            path = os.path.join(at, name)
            status = os.lstat(path)
            found.update(f"{os.path.relpath(path, top)}\0{status.st_mode:o}\0{status.st_nlink}\0".encode())
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    found.update(file.read())
    return found.hexdigest()


def mounted(place):
    """The mounts that have to do with a directory; others of the machine come and go."""
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if place in line]


def marks(top):
    """What a layer holds that no command may forge: devices, set-uid bits, and attributes of overlays."""
    found = []
    for at, dirs, names in os.walk(top):
        for name in dirs + names:
            path = os.path.join(at, name)
            status = os.lstat(path)
            if stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev):
                found.append(name + ": device")
            if stat.S_ISCHR(status.st_mode) and name == "forged":
                found.append(name + ": deletion")
            if status.st_mode & 0o6000:
                found.append(name + ": bits")
            if stat.S_ISLNK(status.st_mode):
                continue
            for space in ("user", "trusted"):
                held = {it.removeprefix(f"{space}.overlay.") for it in os.listxattr(path)}
                forged = held & ({"redirect", "metacopy"} | ({"opaque"} if name == "seen" else set()))
                found += [f"{name}: {it}" for it in forged]
    return found


def bare(place, targets, names):
    """The same without a sandbox."""
    lower = place + "/lower"
    os.mkdir(lower)
    make(lower, targets, closed=False)
    before = digest(lower)
    done = subprocess.run(
        [PYTHON, "-S", "-s", "-E", "-B", "attempts/driver.py", *names],
        cwd=lower,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        close_fds=False,
    )
    return {"output": done.stdout, "lower_same": digest(lower) == before}


def run(kind, place, targets, job):
    from kaivc.errors import KaiError
    from kaivc.sandboxes import KINDS
    from kaivc.sandboxes.base import Form, Job, Limits

    lower, layer = f"{place}/lower", f"{place}/layer"
    os.mkdir(lower)
    os.mkdir(layer, 0o700)
    make(lower, targets, closed=True)
    before, mounts = digest(lower), mounted(place)
    output = bytearray()
    limits = Limits(**LIMITS | job.get("limits", {}))
    free = os.statvfs(place)
    began, cpu = time.monotonic(), time.process_time()
    try:
        ended = KINDS[kind]()().run(Job(tuple(job["argv"]), {}, lower, layer, limits), output.extend)
    except KaiError as error:
        return {"error": error.what}
    taken = free.f_bfree - os.statvfs(place).f_bfree
    result = {
        "by": ended.by,
        "exit_code": ended.exit_code,
        "seconds": time.monotonic() - began,
        "own_cpu": time.process_time() - cpu,
        "left": ended.left_running,
        "peak": ended.peak_memory,
        "output": output.decode(errors="replace"),
        "lower_same": digest(lower) == before,
        "mounts_same": mounted(place) == mounts,
        "marks": marks(ended.top) if not job.get("deep") else [],
        "is_overlay": ended.form is Form.OVERLAY,
        "taken": taken * free.f_frsize,
    }
    subprocess.run(["chmod", "-R", "u+rwX", layer], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", "--", layer], check=False)
    return result


def main():
    kind, base, document = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    os.umask(0o022)
    os.set_inheritable(os.open("/etc", os.O_RDONLY), True)  # what a careless door might hand on
    if kind == "bare":
        print(json.dumps(bare(base, document["targets"], document["names"])))
        return
    from kaivc.sandboxes import KINDS

    ability = KINDS[kind]()().ability()
    results = {"ability": {"level": ability.level, "why": ability.why, "notes": ability.notes}, "jobs": {}}
    for name, job in document["jobs"].items() if ability.level else ():
        place = f"{base}/{name}"
        os.mkdir(place, 0o700)
        results["jobs"][name] = run(kind, place, document["targets"] | {"lower": place + "/lower"}, job)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
