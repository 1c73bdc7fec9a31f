"""A link out of the agent, into the home."""

import os

os.makedirs("deep/er")
os.symlink("../../../../.kai/config.yaml", "deep/er/config.yaml")
