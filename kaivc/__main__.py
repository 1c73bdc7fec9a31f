"""``python -m kaivc`` is ``kai``."""

from __future__ import annotations

import sys

from kaivc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
