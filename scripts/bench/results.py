"""The raw figures of a run: kept as JSON, section by section, and asked for medians."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.bench.figures import middle

FORMAT = 1
LEFT_OUT = "left out: the time was up"
"""Of a run that was not begun."""


@dataclass
class Results:
    """``sections`` by name: W1 to W5, rollback, startup, memory; each says what it was measured on."""

    size: str = "full"
    machine: dict[str, Any] = field(default_factory=dict)
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    # ------------------------------------------------------------ histories

    def runs(self, section: str, system: str) -> list[dict[str, Any]]:
        """The rounds that ended well: what was restored was what had been committed."""
        return [run for run in self._rounds(section, system) if not run.get("failed") and not run.get("invalid")]

    def trouble(self, section: str, system: str) -> str:
        """Why a system has no figures, or should have none; "" if all is well."""
        rounds = self._rounds(section, system)
        invalid = next((run["invalid"] for run in rounds if run.get("invalid")), "")
        if invalid:
            return f"invalid: {invalid}"
        failed = next((run["failed"] for run in rounds if run.get("failed")), "")
        return failed if failed or rounds else "not measured"

    def _rounds(self, section: str, system: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sections.get(section, {}).get("runs", {}).get(system, [])
        return found

    def value(self, section: str, system: str, *keys: str) -> float | None:
        """The median of one figure over the rounds; None unless every round's bytes were right."""
        if self.trouble(section, system).startswith("invalid"):
            return None
        return middle(self.runs(section, system), *keys)

    def room(self, section: str, system: str, when: str, *parts: str, allocated: bool = False) -> float | None:
        """Bytes of files, or of disk blocks, of the named parts together; ``when`` is sizes or tidy_sizes."""
        total = 0.0
        for part in parts:
            runs = [{"it": run.get(when, {}).get(part, [None, None])[allocated]} for run in self.runs(section, system)]
            value = None if self.trouble(section, system).startswith("invalid") else middle(runs, "it")
            if value is None:
                return None
            total += value
        return total

    def measured(self, section: str) -> Sequence[str]:
        """The systems that have a row in a section."""
        return [name for name in self.systems if self._rounds(section, name)]

    # ------------------------------------------------------------ the rest

    def alone(self, section: str, *keys: str) -> Any:  # noqa: ANN401 - whatever lies there
        """What a measurement of kaivc alone found; None if there is nothing."""
        found: Any = self.sections.get(section, {}).get("run")
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    # ------------------------------------------------------------ on disk

    def save(self, path: str) -> None:
        """Write all of it, whole or not at all."""
        data = {
            "format": FORMAT,
            "size": self.size,
            "machine": self.machine,
            "systems": self.systems,
            "sections": self.sections,
        }
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
            file.write("\n")
        os.replace(path + ".new", path)

    @classmethod
    def load(cls, path: str) -> Results | None:
        """What a run before left; None for none that can be read."""
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            if data["format"] != FORMAT:
                return None
            return cls(data["size"], data["machine"], data["systems"], data["sections"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def ratio(above: float | None, below: float | None) -> float | None:
    """How many times ``below`` goes into ``above``; None if either is not known."""
    if above is None or below is None or below <= 0:
        return None
    return above / below
