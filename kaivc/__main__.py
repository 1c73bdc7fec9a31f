"""``python -m kaivc`` is ``kai``."""

from __future__ import annotations

from kaivc.cli.main import script

if __name__ == "__main__":
    script()
