"""What an interpreter would run by itself, were it found on its path."""

import os

for name in ("evil.pth", "sitecustomize.py", "usercustomize.py", "site-packages/x.pth"):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    with open(name, "w") as file:
        file.write("import os; os.system('touch /tmp/redteam-hook')\n")
