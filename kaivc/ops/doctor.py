"""What this machine and this home give."""

from __future__ import annotations

from kaivc import health, machine, sandboxes
from kaivc.errors import KaiError
from kaivc.health import Patient
from kaivc.machine import PROBLEM, WARNING, Found, Line, Machine, ok, told
from kaivc.records import dataclass
from kaivc.sandboxes.base import Ability, Level

SANDBOXES = "sandboxes"


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
    lines = [*machine.check(here), *told(SANDBOXES, _sandboxes)]
    if isinstance(patient, Patient):
        lines += health.check(patient)
    elif patient is not None:
        lines.append(Line("home", PROBLEM, patient.what, patient.hint))
    return Diagnosis(root, tuple(lines))


def _sandboxes() -> Found:
    """What each kind gives here, tried; the first that gives all is the one that is taken."""
    abilities = [it.ability() for it in sandboxes.every()]
    for it in abilities:
        yield ok(_told(it))
    levels = {it.level for it in abilities}
    if Level.FULL not in levels:
        partly = next((it.name for it in abilities if it.level is Level.PARTIAL), None)
        hint = f"`isolation.require: partial` takes {partly}; better " if partly else ""
        what = "`kai snapshot --test` is refused with E103: no kind of sandbox isolates fully here"
        yield WARNING, what, hint + "get what the first of them lacks"


def _told(it: Ability) -> str:
    if it.level is None:
        return f"{it.name}: not here: {it.why}"
    return "; ".join([f"{it.name}: {it.level}{f', {it.why}' if it.why else ''}", *it.notes])
