"""Connect to what listens on the machine's loopback."""

import socket

from tools import TARGETS, each

each(lambda it=it: socket.create_connection((it, TARGETS["port"]), 2) for it in ("127.0.0.1", "localhost", "::1"))
