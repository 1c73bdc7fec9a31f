"""The same under names that are .git on other file systems."""

import os

for name in (".GIT", "git~1", ".git ", ".g\u200cit", "sub/.Git"):
    os.makedirs(name + "/hooks")
    with open(name + "/config", "w") as file:
        file.write("[core]\nfsmonitor = touch /tmp/redteam-hook\n")
