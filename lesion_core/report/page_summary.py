"""What was found, first: verdicts, impossible claims, and the proposed methods' numbers with their intervals."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lesion_core.report.formats import metric_name
from lesion_core.report.ledger import IMPOSSIBLE, VERDICTS
from lesion_core.settings import Plan

MAIN = tuple(map(metric_name, ("dice", "iou", "accuracy", "balanced_accuracy", "auc")))

Row = dict[str, Any]


def summary_of(plan: Plan, ledger: list[Row], claims: dict[str, list[list[Row]]]) -> dict[str, Any]:
    """The findings among the ledger's rows, as the page shows these.

    Returns:
        {verdicts: [(verdict, count)] in the order of `VERDICTS` without zeros, impossible: claims (rows of one pair),
        main: rows of the papers' own methods that have a value of ours}
    """
    counts = Counter(row["verdict"] for row in ledger)
    proposed = {(name, row.label) for name, table in plan.tables.items() for row in table.rows if row.proposed}
    return {
        "verdicts": [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]],
        "impossible": [own for part in claims.values() for own in part if own[0]["verdict"] == IMPOSSIBLE],
        "main": [
            row
            for row in ledger
            if (row["table"], row["row"]) in proposed and row["ours"] != "" and row["metric"] in MAIN
        ],
    }
