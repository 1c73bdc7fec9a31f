"""The pipe between a command and who listens to it."""

import os
import select
import subprocess
import time

import pytest

from kaivc.sandboxes.relay import Relay


def relayed(script: str, cap: int, seconds: float = 20) -> tuple[bytes, Relay]:
    heard: list[bytes] = []
    with Relay(cap, heard.append) as relay:
        child = subprocess.Popen(
            ["/bin/sh", "-c", script], stdin=subprocess.DEVNULL, stdout=relay.inlet, stderr=relay.inlet
        )
        relay.started()
        poll = select.poll()
        poll.register(relay, select.POLLIN)
        end = time.monotonic() + seconds
        while not relay.ended and time.monotonic() < end:
            poll.poll(100)
            if relay.pump():
                child.kill()
        child.wait()
        relay.drain()
    return b"".join(heard), relay


def test_output_and_errors_come_through_in_order() -> None:
    heard, relay = relayed("echo one; echo two >&2; printf '\\033[2Jthree'", 1000)
    assert heard == b"one\ntwo\n\x1b[2Jthree"
    assert (relay.exceeded, relay.ended) == (False, True)


@pytest.mark.parametrize(("cap", "exceeded"), [(10, False), (9, True), (0, True)])
def test_the_cap_is_exact(cap: int, exceeded: bool) -> None:
    heard, relay = relayed("printf 0123456789", cap)
    assert heard == b"0123456789"[:cap]
    assert relay.exceeded is exceeded


def test_silence_is_no_excess() -> None:
    assert relayed("true", 0)[1].exceeded is False


def test_a_flood_ends_at_its_cap() -> None:
    heard, relay = relayed("exec cat /dev/zero", 3_000_000)
    assert (len(heard), relay.exceeded) == (3_000_000, True)


def test_one_turn_is_bounded() -> None:
    """A writer that is faster than its reader must not hold the loop that watches the clock."""
    said = 0

    def say(piece: bytes) -> None:
        nonlocal said
        said += len(piece)

    with Relay(1 << 40, say) as relay:
        child = subprocess.Popen(["cat", "/dev/zero"], stdout=relay.inlet)
        relay.started()
        try:
            for _ in range(20):
                before = said
                relay.pump()
                assert said - before <= (1 << 20) + (1 << 16)
        finally:
            child.kill()
            child.wait()


def test_draining_does_not_wait_for_one_who_keeps_the_pipe_open() -> None:
    heard: list[bytes] = []
    with Relay(100, heard.append) as relay:
        os.write(relay.inlet, b"last words")
        begun = time.monotonic()
        assert relay.drain() is False
        assert time.monotonic() - begun < 1
    assert heard == [b"last words"]


def test_neither_end_is_inherited_and_both_are_closed() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Relay(1, lambda _: None) as relay:
        assert not os.get_inheritable(relay.inlet)
        assert not os.get_inheritable(relay.fileno())
        assert not os.isatty(relay.inlet)
    assert len(os.listdir("/proc/self/fd")) == before
