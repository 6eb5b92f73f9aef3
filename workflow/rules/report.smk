# From scores to claims: these rules read results and nothing else.
from lesion_core.report.extra_tables import EXTRA_TABLES

SCORES = [LAYOUT.scores("segmentation"), LAYOUT.scores("classification")]
EXPLANATIONS = [LAYOUT.root / "explain" / f"{run_id}.{suffix}" for run_id in EXPLAINED for suffix in ("csv", "npz")]
DONE_RUNS = [run_dir(run) / "provenance.json" for run in RUNS.values()]
DONE_RUNS += [run_dir(run) / "history.csv" for run in RUNS.values() if run.task != "derived"]


rule tables:
    input:
        SCORES,
        EXPLANATIONS,
        DONE_RUNS,
    output:
        LAYOUT.root / "tables" / "cells.parquet",
        [LAYOUT.table(name, suffix) for name in (*PLAN.tables, *EXTRA_TABLES) for suffix in ("csv", "md", "tex")],
    log:
        log_of("tables"),
    benchmark:
        benchmark_of("tables")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("report.tables"),
    shell:
        "lesion tables --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule statistics:
    input:
        SCORES,
    output:
        LAYOUT.root / "statistics" / "tests.csv",
        [LAYOUT.table(name, suffix) for name in ("table_15", "table_16") for suffix in ("csv", "md", "tex")],
    log:
        log_of("statistics"),
    benchmark:
        benchmark_of("statistics")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("report.statistics"),
    shell:
        "lesion statistics --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule subgroups:
    input:
        LAYOUT.scores("classification"),
        LAYOUT.catalog,
    output:
        LAYOUT.root / "statistics" / "subgroups.csv",
    log:
        log_of("subgroups"),
    benchmark:
        benchmark_of("subgroups")
    params:
        root=LAYOUT.root,
        settings=given("plan", "subgroups"),
        code=code("report.subgroups"),
    shell:
        "lesion subgroups --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule figures:
    input:
        SCORES,
        EXPLANATIONS,
        DONE_RUNS,
        LAYOUT.catalog,
        rules.statistics.output,
        rules.subgroups.output,
    output:
        LAYOUT.root / "figures" / "figures.json",
        LAYOUT.root / "figures" / OPENED,
    log:
        log_of("figures"),
    benchmark:
        benchmark_of("figures")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("report.figures"),
    shell:
        "lesion figures --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule ledger:
    input:
        SCORES,
        LAYOUT.root / "tables" / "cells.parquet",
    output:
        LAYOUT.root / "ledger" / "ledger.csv",
        LAYOUT.root / "ledger" / "intervals.csv",
    log:
        log_of("ledger"),
    benchmark:
        benchmark_of("ledger")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("report.ledger"),
    shell:
        "lesion ledger --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule report:
    input:
        SCORES,
        DONE_RUNS,
        rules.tables.output,
        rules.statistics.output,
        rules.figures.output,
        rules.ledger.output,
        LAYOUT.catalog,
        LAYOUT.certificate,
        DATA_REPORT,
    output:
        LAYOUT.report,
        LAYOUT.root / "figures" / f"page.{OPENED}",
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("report.page"),
    shell:
        "lesion report --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


# For `dvc metrics show` and `dvc plots show`.
rule summary:
    input:
        LAYOUT.root / "tables" / "cells.parquet",
        DONE_RUNS,
    output:
        LAYOUT.root / "summary" / "metrics.json",
        [
            LAYOUT.root / "summary" / "curves" / run.task / f"{run.run_id}.csv"
            for run in RUNS.values()
            if run.task != "derived"
        ],
    log:
        log_of("summary"),
    benchmark:
        benchmark_of("summary")
    params:
        root=LAYOUT.root,
        settings=given("plan"),
        code=code("sharing.summary"),
    shell:
        "lesion summary --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


# Last: what `lesion audit` compares a results folder with.
rule manifest:
    input:
        LAYOUT.report,
        LAYOUT.certificate,
        rules.tables.output,
        rules.statistics.output,
        rules.ledger.output,
        rules.summary.output,
        audits(),
        LAYOUT.root / "statistics" / "subgroups.csv",
        LAYOUT.root / "statistics" / "robustness.csv",
    output:
        LAYOUT.manifest,
    log:
        log_of("manifest"),
    benchmark:
        benchmark_of("manifest")
    params:
        root=LAYOUT.root,
        settings=canonical_json(settings_reader.recorded(SETTINGS)),
        code=code("audit.manifest"),
    shell:
        "lesion manifest --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"
