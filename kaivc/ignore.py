"""What a version leaves out: the defaults, and the workspace's `.kaiignore` in gitignore's grammar.

A walk asks once for each directory and file, from the root down, and does not enter an ignored directory; so,
as in git, nothing below one can be taken back.
"""

from __future__ import annotations

from typing import Final

from kaivc.errors import InvalidManifest
from kaivc.patterns import MAX_PATTERNS, Pattern, Patterns, compile_pattern, is_blank
from kaivc.yamltext import located, shown

IGNORE_FILE: Final = b".kaiignore"
MAX_BYTES: Final = 64 * 1024
MAX_WILDCARDS: Final = 3_000
"""Each costs some 25 microseconds to compile."""
SLASH: Final = ord("/")

_NEVER_KEPT = (".git", ".kai")
_KEYS = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")
_KEY_SUFFIXES = (".pem", ".key", ".p12", ".pfx", ".keystore", ".jks")
_RESERVED = "snapshot_meta.json"

DEFAULT_IGNORES: Final[tuple[str, ...]] = (
    *_NEVER_KEPT,
    ".venv",
    "__pycache__",
    ".env*",
    *_KEYS,
    *(f"*{suffix}" for suffix in _KEY_SUFFIXES),
    f"/{_RESERVED}",
)
"""The defaults as patterns; `.kaiignore` may take back all but `.git`, `.kai` and `/snapshot_meta.json`."""

# The same as code on bytes: it runs for every path of every walk.
_FIXED_NAMES = frozenset(name.encode() for name in _NEVER_KEPT)
_FIXED_PATH = _RESERVED.encode()
_NAMES = frozenset(name.encode() for name in (".venv", "__pycache__", *_KEYS))
_SUFFIXES = tuple(suffix.encode() for suffix in _KEY_SUFFIXES)


class IgnoreRules:
    """The rules of one workspace; without patterns, the defaults alone."""

    def __init__(self, patterns: Patterns | None = None) -> None:
        self._patterns = patterns

    @classmethod
    def parse(cls, data: bytes | None, source: str = ".kaiignore") -> IgnoreRules:
        """Read an ignore file, None for none; InvalidManifest with file and line."""
        patterns = _read(data, source) if data else []
        return cls(Patterns(patterns) if patterns else None)

    def named(self, path: bytes) -> bool:
        """Whether a pattern of the ignore file, not only a default, speaks of ``path``."""
        if self._patterns is None:
            return False
        return self._patterns.verdict(path, is_directory=False) is not None or bool(
            self._patterns.verdict(path, is_directory=True)
        )

    def ignored(self, path: bytes, is_dir: bool) -> bool:
        """Whether ``path``, relative to the workspace and below no ignored directory, is left out."""
        name = path[path.rfind(b"/") + 1 :]
        if name in _FIXED_NAMES or path == _FIXED_PATH:
            return True
        if self._patterns is not None:
            verdict = self._patterns.verdict(path, is_directory=is_dir)
            if verdict is not None:
                return verdict
        return name in _NAMES or name.startswith(b".env") or name.endswith(_SUFFIXES)

    def leave_out(self, path: bytes) -> bool:
        """Whether a walk from the root down comes past no file of that path."""
        above = (path[:at] for at, byte in enumerate(path) if byte == SLASH)
        return any(self.ignored(each, True) for each in above) or self.ignored(path, False)


def _read(data: bytes, source: str) -> list[Pattern]:
    if len(data) > MAX_BYTES:
        raise located(InvalidManifest, source, 1, f"{len(data):,} bytes, the limit is {MAX_BYTES:,}")
    patterns: list[Pattern] = []
    wildcards = 0
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        text = line.removesuffix(b"\r")
        if not is_blank(text):
            patterns.append(_compile(text, source, number))
            wildcards += sum(text.count(it) for it in (b"*", b"?", b"["))
        if wildcards > MAX_WILDCARDS:
            raise located(InvalidManifest, source, number, f"more than {MAX_WILDCARDS:,} wildcards")
        if len(patterns) > MAX_PATTERNS:
            raise located(InvalidManifest, source, number, f"more than {MAX_PATTERNS:,} patterns")
    return patterns


def _compile(text: bytes, source: str, number: int) -> Pattern:
    try:
        return compile_pattern(text)
    except ValueError as bad:
        pattern = shown(text.decode("utf-8", "backslashreplace"))
        hint = "git would pass over this line; remove it or put it right"
        raise located(InvalidManifest, source, number, f"{pattern} {bad}", hint) from None
