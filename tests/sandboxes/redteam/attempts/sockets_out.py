"""Find a way out of the machine; nothing is sent."""

import socket

from tools import each

each(
    lambda it=it: socket.socket(it[0], socket.SOCK_DGRAM).connect((it[1], 9)) or it[1]
    for it in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "169.254.169.254"))
)
