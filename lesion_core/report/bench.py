"""Seconds and memory per rule, from Snakemake's ``benchmark:`` files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lesion_core.errors import RunError
from lesion_core.files import read_csv
from lesion_core.paths import Layout


def bench_table(root: Path) -> str:
    """A Markdown table: rule, jobs, seconds in all, slowest job, CPU seconds, peak memory; slowest rule first.

    Raises:
        RunError: nothing was run under ``root``.
    """
    folder = Layout(root).benchmarks
    rows = [
        {"rule": path.relative_to(folder).parts[0].removesuffix(".tsv"), **row}
        for path in sorted(folder.rglob("*.tsv"))
        for row in read_csv(path, delimiter="\t")
    ]
    if not rows:
        raise RunError("No benchmark files", file=folder, remedy="run the pipeline first")
    jobs = pd.DataFrame(rows).reindex(columns=["rule", "s", "cpu_time", "max_rss"]).set_index("rule")
    rules = jobs.apply(pd.to_numeric, errors="coerce").fillna(0).groupby(level="rule")
    found = rules.agg(
        jobs=("s", "size"), seconds=("s", "sum"), slowest=("s", "max"), cpu=("cpu_time", "sum"), peak=("max_rss", "max")
    )
    lines = ["| rule | jobs | seconds | slowest | CPU seconds | peak MB |", "|---|---:|---:|---:|---:|---:|"]
    for row in found.sort_values("seconds", ascending=False, kind="stable").itertuples():
        lines.append(
            f"| {row.Index} | {row.jobs} | {row.seconds:.1f} | {row.slowest:.1f} | {row.cpu:.1f} | {row.peak:.0f} |"
        )
    return "\n".join([*lines, f"| all | {len(jobs)} | {found['seconds'].sum():.1f} | | | |"])
