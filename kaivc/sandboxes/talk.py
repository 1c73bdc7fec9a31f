"""The child's end of the line to kai: what it was told, what it says, and how it says that a step failed."""

from __future__ import annotations

import _socket
import os

from kaivc.sandboxes import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SOCKET = 3
_ANCILLARY = 4096


class Child:
    """What the child knows: what kai told it, and the way to answer."""

    def __init__(self) -> None:
        self.line = _socket.socket(fileno=SOCKET)
        self.fds: list[int] = []
        self.told: dict[bytes, bytes] = {}

    def tell(self, *parts: bytes) -> None:
        """Say something to kai, who sees which process says it."""
        self.line.sendall(kernel.pack(parts))

    def hear(self) -> list[bytes]:
        """Wait for kai. Ends the process when kai is gone."""
        head = self._take(4)
        return kernel.unpack(self._take(int.from_bytes(head, "little")))

    def _take(self, size: int) -> bytes:
        pieces = []
        while size:
            piece, ancillary, _, _ = self.line.recvmsg(size, _ANCILLARY)
            if not piece:
                os._exit(1)
            for level, kind, data in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    self.fds += [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def number(self, name: bytes) -> int:
        """One of the numbers that kai told."""
        return int(self.told[name])

    def several(self, name: bytes) -> list[bytes]:
        """One of the lists that kai told."""
        return kernel.unpack(self.told[name])

    def go_through(self, steps: Iterable[tuple[str, Callable[[Child], None]]]) -> None:
        """Take steps in turn; the first that fails ends this process, and kai is told which."""
        for name, step in steps:
            try:
                step(self)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the command must not run
                what = f"{getattr(error, 'filename', None) or type(error).__name__}: {error}"
                self.tell(b"failed", name.encode(), what.encode(errors="replace"))
                os._exit(1)
