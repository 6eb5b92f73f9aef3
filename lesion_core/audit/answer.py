"""One question of the audit with its verdict and evidence."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN_PROBLEMS = 20
OK, FAILED, SKIPPED = "ok", "FAILED", "not checked"
NOT_ASKED = "ask for it with --recompute N"


@dataclass
class Answer:
    """What was asked, what was looked at, and what does not hold.

    Attributes:
        question: a sentence that ends in a question mark.
        evidence: what was compared with what, with counts.
        problems: one line for each thing that does not hold, starting with the file's path where there is one.
        skipped: why it was not checked; empty if it was.
    """

    question: str
    evidence: str = ""
    problems: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def verdict(self) -> str:
        """``ok``, ``FAILED`` or ``not checked``."""
        return FAILED if self.problems else SKIPPED if self.skipped else OK

    def text(self) -> str:
        """Lines for a terminal; the first problems are shown, all are in ``record``."""
        lines = [f"{self.verdict:<12}{self.question}"]
        lines += [f"{'':12}{line}" for line in (self.evidence, self.skipped) if line]
        lines += [f"{'':12}- {line}" for line in self.problems[:SHOWN_PROBLEMS]]
        if len(self.problems) > SHOWN_PROBLEMS:
            lines.append(f"{'':12}- and {len(self.problems) - SHOWN_PROBLEMS} more")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"verdict": self.verdict, **asdict(self)}
