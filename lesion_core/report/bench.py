"""Seconds and memory per rule, from Snakemake's ``benchmark:`` files."""

from __future__ import annotations

from pathlib import Path

from lesion_core.errors import RunError
from lesion_core.files import read_csv
from lesion_core.paths import Layout


def bench_table(root: Path) -> str:
    """A Markdown table: rule, jobs, seconds in all, slowest job, CPU seconds, peak memory; slowest rule first.

    Raises:
        RunError: nothing was run under ``root``.
    """
    rules: dict[str, list[dict[str, float]]] = {}
    folder = Layout(root).benchmarks
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        for row in read_csv(path, delimiter="\t"):
            rules.setdefault(rule, []).append({key: _number(row.get(key)) for key in ("s", "max_rss", "cpu_time")})
    if not rules:
        raise RunError("No benchmark files", file=folder, remedy="run the pipeline first")
    lines = ["| rule | jobs | seconds | slowest | CPU seconds | peak MB |", "|---|---:|---:|---:|---:|---:|"]
    for rule, jobs in sorted(rules.items(), key=lambda item: -sum(job["s"] for job in item[1])):
        seconds = [job["s"] for job in jobs]
        lines.append(
            f"| {rule} | {len(jobs)} | {sum(seconds):.1f} | {max(seconds):.1f}"
            f" | {sum(job['cpu_time'] for job in jobs):.1f} | {max(job['max_rss'] for job in jobs):.0f} |"
        )
    total = sum(job["s"] for jobs in rules.values() for job in jobs)
    lines.append(f"| all | {sum(map(len, rules.values()))} | {total:.1f} | | | |")
    return "\n".join(lines)


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
