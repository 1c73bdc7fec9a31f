"""What one client may take of the server."""

from __future__ import annotations

from kaivc.records import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds.

    ``requests`` are worked on at once, at most half of them for one token; ``connections`` may be open, half of them
    from one address. A request's head must be there after ``head``, its message after ``message``; nothing may come or
    go for ``idle``, and what comes must make ``rate`` bytes a second. ``refusals`` of one address within a minute, then
    it is told to wait. ``grace`` is what requests have to end once the server is told to stop.
    """

    parcel: int = 16 * GIB
    requests: int = 32
    connections: int = 1000
    head: float = 20.0
    message: float = 30.0
    idle: float = 60.0
    rate: int = 1024
    refusals: int = 20
    grace: float = 30.0

    @property
    def each(self) -> int:
        """Requests of one token that are worked on at once."""
        return max(1, self.requests // 2)
