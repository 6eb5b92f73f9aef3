# From scores to claims: these rules read results and nothing else.
from lesion_core.report.checklists import SHEETS
from lesion_core.report.extra_tables import EXTRA_TABLES
from lesion_core.sharing.summary import main_methods

CERTIFICATES = [LAYOUT.certificate(home) for home in sorted(set(PLAN.protocols.values()))]
SCORES = [LAYOUT.scores("segmentation"), LAYOUT.scores("classification")]
EXPLANATIONS = [LAYOUT.explained(run_id, suffix) for run_id in EXPLAINED for suffix in ("csv", "npz")]
DONE_RUNS = [run_dir(run) / "provenance.json" for run in RUNS.values()]
DONE_RUNS += [run_dir(run) / "history.csv" for run in RUNS.values() if run.task != "derived"]


def table_files(names):
    """Three formats of tables; `snakemake --report` shows the .csv."""
    files = {name: LAYOUT.table(name, "csv") for name in names}
    shown = [shown_in_report(path, "table", "Tables", labels={"table": name}) for name, path in files.items()]
    return shown + [LAYOUT.table(name, suffix) for name in names for suffix in ("md", "tex")]


rule tables:
    input:
        SCORES,
        EXPLANATIONS,
        DONE_RUNS,
        LAYOUT.human_reference,
    output:
        LAYOUT.cells,
        table_files((*PLAN.tables, *EXTRA_TABLES)),
    log:
        log_of("tables"),
    benchmark:
        benchmark_of("tables")
    params:
        **remade_when("report.tables", "tables"),
    shell:
        lesion("tables")


rule statistics:
    input:
        SCORES,
    output:
        shown_in_report(LAYOUT.statistics("tests"), "tests", "Statistics"),
        table_files(PLAN.tests),
    log:
        log_of("statistics"),
    benchmark:
        benchmark_of("statistics")
    params:
        **remade_when("report.statistics", "statistics"),
    shell:
        lesion("statistics")


rule subgroups:
    input:
        LAYOUT.scores("classification"),
        LAYOUT.catalog,
    output:
        shown_in_report(LAYOUT.statistics("subgroups"), "subgroups", "Statistics"),
    log:
        log_of("subgroups"),
    benchmark:
        benchmark_of("subgroups")
    params:
        **remade_when("report.subgroups", "subgroups"),
    shell:
        lesion("subgroups")


rule figures:
    input:
        SCORES,
        EXPLANATIONS,
        DONE_RUNS,
        LAYOUT.catalog,
        rules.statistics.output,
        rules.subgroups.output,
    output:
        shown_in_report(LAYOUT.all_figures, "figures", "Figures"),
        LAYOUT.figure_list,
        LAYOUT.figures / RECORD,
    log:
        log_of("figures"),
    benchmark:
        benchmark_of("figures")
    params:
        **remade_when("report.figures", "figures"),
    shell:
        lesion("figures")


rule ledger:
    input:
        SCORES,
        LAYOUT.cells,
        LAYOUT.human_reference,
    output:
        shown_in_report(LAYOUT.ledger, "ledger", "Verdicts"),
        LAYOUT.intervals,
    log:
        log_of("ledger"),
    benchmark:
        benchmark_of("ledger")
    params:
        **remade_when("report.ledger", "ledger"),
    shell:
        lesion("ledger")


rule checklists:
    input:
        SCORES,
        DONE_RUNS,
        rules.statistics.output,
        rules.figures.output,
        LAYOUT.catalog,
        CERTIFICATES,
        DATA_REPORT,
    output:
        [LAYOUT.checklist(name, suffix) for name, suffix in SHEETS],
        [LAYOUT.run_card(run_id) for run_id in sorted(PLAN.run_ids)],
        [LAYOUT.dataset_card(dataset) for dataset in SETTINGS.data.datasets],
    log:
        log_of("checklists"),
    benchmark:
        benchmark_of("checklists")
    params:
        **remade_when("report.checklists", "checklists"),
    shell:
        lesion("checklists")


# Of a rehearsal; `lesion rehearsal` makes it at any time.
rule rehearsal:
    input:
        DONE_RUNS,
    output:
        LAYOUT.rehearsal("csv"),
        LAYOUT.rehearsal("md"),
    log:
        log_of("rehearsal"),
    benchmark:
        benchmark_of("rehearsal")
    params:
        **remade_when("plan.rehearsal"),
    shell:
        lesion("rehearsal")


rule report:
    input:
        [LAYOUT.rehearsal("csv")] if PLAN.rehearsed else [],
        rules.checklists.output,
        SCORES,
        DONE_RUNS,
        rules.tables.output,
        rules.statistics.output,
        rules.figures.output,
        rules.ledger.output,
        rules.subgroups.output,
        LAYOUT.statistics("robustness"),
        LAYOUT.catalog,
        CERTIFICATES,
        DATA_REPORT,
    output:
        shown_in_report(LAYOUT.report, "page", "Report"),
        LAYOUT.figures / f"page.{RECORD}",
    log:
        log_of("report"),
    benchmark:
        benchmark_of("report")
    params:
        **remade_when("report.page", "report"),
    shell:
        lesion("report")


# For `dvc metrics show`.
rule summary:
    input:
        LAYOUT.cells,
    output:
        [LAYOUT.summary(method) for method in main_methods(PLAN)],
    log:
        log_of("summary"),
    benchmark:
        benchmark_of("summary")
    params:
        **remade_when("sharing.summary", "summary"),
    shell:
        lesion("summary")


# What `lesion audit` compares a results folder with.
rule manifest:
    input:
        LAYOUT.report,
        CERTIFICATES,
        rules.tables.output,
        rules.statistics.output,
        rules.ledger.output,
        rules.checklists.output,
        rules.summary.output,
        audits(),
        LAYOUT.statistics("subgroups"),
        LAYOUT.statistics("robustness"),
    output:
        LAYOUT.manifest,
    log:
        log_of("manifest"),
    benchmark:
        benchmark_of("manifest")
    params:
        **remade_when("audit.manifest"),
        recorded=canonical_json(stored.recorded(SETTINGS)),
    shell:
        lesion("manifest")


# Last: Snakemake's records of all that was made, so that a pull brings them along.
rule snapshot:
    input:
        LAYOUT.manifest,
    output:
        LAYOUT.snapshot,
    log:
        log_of("snapshot"),
    benchmark:
        benchmark_of("snapshot")
    params:
        **remade_when("sharing.snapshot"),
    shell:
        lesion("snapshot")
