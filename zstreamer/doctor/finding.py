"""What the doctor has found: one thing that is wrong, how it knows, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: a short name that programs may compare.
        severity: from 1 to 100; the worst are told first.
        title: what is wrong, in one sentence.
        evidence: the figures that say so.
        advice: what to do.
        model: whose trouble it is, empty where it is no model's.
    """

    code: str
    severity: int
    title: str
    evidence: str
    advice: str
    model: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found, worst first, and what was looked at.

    Attributes:
        findings: what is wrong, worst first.
        looked: what was looked at, in one sentence.
    """

    findings: tuple[Finding, ...]
    looked: str

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def plain(self) -> dict[str, object]:
        """Return it as plain values, for JSON."""
        return {
            "healthy": self.healthy,
            "looked": self.looked,
            "findings": [asdict(each) for each in self.findings],
        }

    def __str__(self) -> str:
        if self.healthy:
            return f"nothing is wrong: {self.looked}"
        return "\n\n".join(_text(each) for each in self.findings)


def report(findings: Iterable[Finding], looked: str) -> Report:
    """Return the findings in their order: worst first, and equal ones by their words."""
    ordered = sorted(dict.fromkeys(findings), key=lambda each: (-each.severity, each.title))
    return Report(tuple(ordered), looked)


def _text(finding: Finding) -> str:
    lines = (
        finding.title,
        f"  how it knows: {finding.evidence}",
        f"  what to do: {finding.advice}",
    )
    return "\n".join(lines)
