"""Findings: what was looked at, how it is, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Severity = Literal["ok", "warning", "error"]

#: From the least to the worst.
SEVERITIES: Final[tuple[Severity, ...]] = ("ok", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    Attributes:
        check: What was looked at, in a word or two.
        severity: "ok"; "warning", when it works and may not for long, or not as meant; "error".
        text: How it is.
        mend: What to do, as exactly as can be; empty when nothing is wrong.
    """

    check: str
    severity: Severity
    text: str
    mend: str = ""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, mend: str) -> Finding:
    """It works, and may not for long."""
    return Finding(check, "warning", text, mend)


def error(check: str, text: str, mend: str) -> Finding:
    """It does not work, or events are lost."""
    return Finding(check, "error", text, mend)


def worst(findings: list[Finding]) -> Severity:
    """The worst severity of all."""
    return max((each.severity for each in findings), key=SEVERITIES.index, default="ok")
