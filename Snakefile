# From downloads to the report. Profiles: --config profile=smoke | mini mirror=DIR | rehearsal mirror=DIR | paper (the default).
import time

from snakemake.utils import min_version

min_version("9.0")

STARTED = time.time()


report: "workflow/report/workflow.rst"


# read under --sdm apptainer alone; workflow/envs/lesion.def says how to build it
container: "workflow/envs/lesion.sif"


# params.yaml is read and checked in common.smk
include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/pseudo_masks.smk"
include: "workflow/rules/scoring.smk"
include: "workflow/rules/robustness.smk"
include: "workflow/rules/explain.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/stages.smk"


# On a cluster these run where Snakemake runs: nodes often cannot reach the internet, and a queue is not for a second's work.
localrules:
    download,
    weights,
    human_reference,
    gather_scores,
    gather_robustness,
    tables,
    ledger,
    summary,
    snapshot,


rule all:
    default_target: True
    input:
        LAYOUT.report,
        LAYOUT.snapshot,
        CERTIFICATES,
        LAYOUT.cells,
        LAYOUT.statistics("tests"),
        LAYOUT.ledger,
        audits(),
        LAYOUT.statistics("subgroups"),
        LAYOUT.statistics("robustness"),


onstart:
    begin()


onerror:
    save_records(False)


onsuccess:
    save_records(True)
    made = LAYOUT.report.is_file() and LAYOUT.report.stat().st_mtime >= STARTED
    print(f"Done. Open {LAYOUT.report}" if made else "Done; the report was not asked for or is as it was.")
