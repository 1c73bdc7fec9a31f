"""Send a datagram to what listens on the machine's loopback."""

import socket

from tools import TARGETS, done

socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"redteam", ("127.0.0.1", TARGETS["udp"]))
done()
