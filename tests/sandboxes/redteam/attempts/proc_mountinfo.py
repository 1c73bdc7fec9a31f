"""Learn from the table of mounts where on the host the layer lies."""

from tools import TARGETS, held, won

with open("/proc/self/mountinfo") as file:
    text = file.read()
won(text) if TARGETS["place"] in text else held()
