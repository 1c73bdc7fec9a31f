"""Connect to a socket of the machine that lies at a path, and hand it a descriptor."""

import array
import os
import socket

from tools import TARGETS, won

it = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
it.connect(TARGETS["socket"])
it.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [os.open(".", os.O_RDONLY)]))])
won()
