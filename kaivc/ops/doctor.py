"""What this machine and this home give."""

from __future__ import annotations

from kaivc import health, machine
from kaivc.errors import KaiError
from kaivc.health import Patient
from kaivc.machine import PROBLEM, WARNING, Line, Machine
from kaivc.records import dataclass


@dataclass(frozen=True)
class Diagnosis:
    """The lines of all checks; ``home`` is the path of the home, None outside one."""

    home: str | None
    lines: tuple[Line, ...]

    @property
    def problems(self) -> int:
        """How many lines are problems."""
        return sum(line.level == PROBLEM for line in self.lines)

    @property
    def warnings(self) -> int:
        """How many lines are warnings."""
        return sum(line.level == WARNING for line in self.lines)


def doctor(here: Machine, root: str | None, patient: Patient | KaiError | None) -> Diagnosis:
    """Check the machine and, if there is one, the home at ``root``: open, or the error that kept it from being opened.

    Nothing is changed; what is wrong is a line, not an error.
    """
    lines = list(machine.check(here))
    if isinstance(patient, Patient):
        lines += health.check(patient)
    elif patient is not None:
        lines.append(Line("home", PROBLEM, patient.what, patient.hint))
    return Diagnosis(root, tuple(lines))
