"""Two links, each within the agent, that together lead out of it."""

import os

os.mkdir("a")
os.symlink("..", "a/b")
os.symlink("a/b/../../.kai", "c")
