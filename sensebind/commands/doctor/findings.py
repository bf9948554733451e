"""What a check of `sensebind doctor` finds, and how findings are printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` says how to fix it; empty if it is OK. `optional`: the fix is not required."""

    name: str
    result: str
    fix: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """A function that yields findings. `required`: Sensebind cannot work if it raises. `loads`: it loads packages into
    this process, so it is left out if one of them crashes Python."""

    name: str
    find: Callable[[], Iterator[Finding]]
    required: bool = True
    loads: bool = False


def print_findings(findings: Iterable[Finding]) -> int:
    """Print findings as they are found. Returns the exit status: 1 if one that is not optional needs a fix."""
    failed = False
    for finding in findings:
        sign = "ok  " if not finding.fix else ("note" if finding.optional else "FAIL")
        print(f"{sign} {finding.name}: {finding.result}", flush=True)
        if finding.fix:
            print(f"       {finding.fix}", flush=True)
        failed |= bool(finding.fix) and not finding.optional
    return int(failed)


def guarded(check: Check, crashing: Sequence[str]) -> Iterator[Finding]:
    """The findings of a check; if it raises, a finding that says so. `crashing`: packages that crash Python."""
    if check.loads and crashing:
        result, fix = f"not checked, because {', '.join(crashing)} crashes Python", "install it again: see above"
        yield Finding(check.name, result, fix, optional=not check.required)
        return
    try:
        yield from check.find()
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split()) or "no message"
        fix = "fix the problems above first; if this stays, report it with this output"
        yield Finding(check.name, f"the check failed: {type(error).__name__}: {text}", fix, optional=not check.required)
