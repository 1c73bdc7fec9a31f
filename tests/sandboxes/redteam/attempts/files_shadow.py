"""Read the host's passwords."""

from tools import won

with open("/etc/shadow") as file:
    won(file.readline())
