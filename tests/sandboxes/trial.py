"""Runs commands in the native sandbox and tells how they went, as JSON: a program, so that any uid can run it.

Its one argument is a JSON document: ``base`` (a directory of this user's), and ``cases``, each with ``argv``, and as
asked for ``limits``, ``environ``, ``files`` of the version, ``boot`` (lines for the child before it begins, to break a
guard) and ``here`` (lines for kai's side).
"""

import json
import os
import stat
import sys

from kaivc.errors import IsolationFailed
from kaivc.sandboxes import child, native
from kaivc.sandboxes.base import Job, Limits

BOOT: str = child.BOOT
LIMITS = {
    "memory": 256 << 20,
    "processes": 24,
    "open_files": 64,
    "written": 32 << 20,
    "inodes": 500,
    "output": 1 << 20,
    "seconds": 20,
}


def tree(top):
    """What lies below a directory: its kind, mode, and bytes or target."""
    found = {}
    for at, dirs, files in os.walk(top):
        for name in [*dirs, *files]:
            path = os.path.join(at, name)
            status = os.lstat(path)
            what = oct(status.st_mode)
            if stat.S_ISREG(status.st_mode) and status.st_size < 10_000:
                with open(path, encoding="latin-1") as file:
                    what = file.read()
            elif stat.S_ISCHR(status.st_mode):
                what = f"device {status.st_rdev}"
            elif stat.S_ISLNK(status.st_mode):
                what = "-> " + os.readlink(path)
            found[os.path.relpath(path, top)] = what
    return found


def make(base, files):
    """A version as a view holds it: closed to all but its owner, who may only read it."""
    os.mkdir(base)
    for name, text in files.items():
        path = f"{base}/{name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o500 if name.endswith(".sh") else 0o400)
    os.symlink("a", f"{base}/link")
    for at, _, _ in os.walk(base, topdown=False):
        os.chmod(at, 0o500)


def one(base, case):
    lower, layer = f"{base}/lower", f"{base}/layer"
    os.mkdir(base)
    make(lower, case.get("files", {"a": "hello\n", "sub/b": "bb\n", "run.sh": "#!/bin/sh\necho ran\n"}))
    os.mkdir(layer, 0o700)
    before = tree(lower)
    begin = '__import__("kaivc.sandboxes."'
    assert begin in BOOT
    text = BOOT.replace(begin, f"from kaivc.sandboxes import inside\n{case.get('boot', '')}\n{begin}")
    setattr(child, "BOOT", text)  # noqa: B010 - a constant, to all but a test
    exec(case.get("here", ""), {"child": child, "native": native})  # noqa: S102 - the test's own lines
    output = b""

    def say(piece):
        nonlocal output
        output += piece

    limits = Limits(**{**LIMITS, **case.get("limits", {})})
    try:
        ended = native.Native().run(Job(tuple(case["argv"]), case.get("environ", {}), lower, layer, limits), say)
    except IsolationFailed as error:
        result = {"guard": error.facts["guard"], "what": error.what, "hint": error.hint}
    else:
        result = {name: getattr(ended, name) for name in ended.__match_args__}
    for at, _, _ in os.walk(f"{layer}/overlay/upper"):
        os.chmod(at, 0o755)
    result["upper"] = tree(f"{layer}/overlay/upper")
    result["beside"] = sorted(os.listdir(f"{layer}/overlay")) if os.path.isdir(f"{layer}/overlay") else []
    result["output"] = output.decode(errors="replace")
    result["lower_unchanged"] = tree(lower) == before
    return result


def main():
    asked = json.loads(sys.argv[1])
    print(json.dumps([one(f"{asked['base']}/{number}", case) for number, case in enumerate(asked["cases"])]))


if __name__ == "__main__":
    main()
