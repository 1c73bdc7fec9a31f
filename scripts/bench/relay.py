"""What is called like ssh, runs the command on this machine, and notes how many bytes went either way.

``relay.py COUNTS [words of ssh] COMMAND``. The kernel moves the bytes from pipe to pipe: that costs hardly any CPU.
"""

import os
import stat
import subprocess
import sys
import threading

PIECE = 1 << 20


def carry(source: int, sink: int, counts: list[int]) -> None:
    """Move all bytes, and count them."""
    move = splice if all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (source, sink)) else copy
    while True:
        try:
            count = move(source, sink)
        except BrokenPipeError:
            break
        if not count:
            break
        counts.append(count)
    os.close(sink)


def splice(source: int, sink: int) -> int:
    """From pipe to pipe."""
    return os.splice(source, sink, PIECE)


def copy(source: int, sink: int) -> int:
    """Where sockets are, as with rsync: theirs do not wait."""
    os.set_blocking(source, True)
    os.set_blocking(sink, True)
    view = memoryview(os.read(source, PIECE))
    done = 0
    while done < len(view):
        done += os.write(sink, view[done:])
    return done


def main() -> int:
    """What the command ends with."""
    path, words = sys.argv[1], sys.argv[2:]
    command = " ".join(words[_host(words) + 1 :])
    far = subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if far.stdin is None or far.stdout is None:
        raise AssertionError("both are pipes")
    there: list[int] = []
    back: list[int] = []
    sending = threading.Thread(target=carry, args=(0, os.dup(far.stdin.fileno()), there), daemon=True)
    far.stdin.close()
    sending.start()
    carry(far.stdout.fileno(), 1, back)
    code = far.wait()
    with open(path, "a", encoding="ascii") as file:
        file.write(f"{sum(there)} {sum(back)}\n")
    return code


def _host(words: list[str]) -> int:
    """Where the host stands among the words of ssh: behind the options, of which these take a value."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return at + 1
        at += 2 if words[at] in ("-p", "-l", "-o", "-F", "-i") else 1
    return at


if __name__ == "__main__":
    sys.exit(main())
