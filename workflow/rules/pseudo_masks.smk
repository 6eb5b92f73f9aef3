# A trained segmenter's masks for whole datasets that the classifiers read.
from lesion_core.settings.check import WITH_MASKS


def pseudo_mask_inputs(wildcards):
    run = SEGMENTERS[wildcards.run_id]
    return [
        weights_of(run),
        *pixels(run, [wildcards.dataset], run.spec.model.image_size),
        *foundation(run),
    ]


rule pseudo_masks:
    input:
        pseudo_mask_inputs,
    output:
        multiext(
            f"{LAYOUT.pseudo_masks('{run_id}', '{dataset}')}/", "probabilities.npy", "masks.npy", "masks.csv", RECORD
        ),
    log:
        log_of("pseudo_masks/{run_id}_{dataset}"),
    benchmark:
        benchmark_of("pseudo_masks/{run_id}_{dataset}")
    priority: priority(*SEGMENTERS)
    threads: COMPUTE.threads
    resources:
        **computing(),
    params:
        **remade_when("inference.pseudo_masks", "pseudo-masks"),
    shell:
        lesion("pseudo-masks {wildcards.run_id:q} {wildcards.dataset:q}")


def audits():
    """Pseudo-masks that classifiers are scored with and that published masks can judge."""
    read = {run.segmenter_run for run in (*CLASSIFIERS.values(), *JOINT.values()) if reads_pseudo_masks(run)}
    tested = sorted(set(SETTINGS.scoring.classification_on) & set(WITH_MASKS) - {"custom"})
    return [LAYOUT.pseudo_masks(run_id, name) / "audit_summary.csv" for run_id in sorted(read) for name in tested]


rule audit_pseudo_masks:
    input:
        LAYOUT.pseudo_masks("{run_id}", "{dataset}") / "masks.csv",
        LAYOUT.catalog,
    output:
        LAYOUT.pseudo_masks("{run_id}", "{dataset}") / "audit.csv",
        LAYOUT.pseudo_masks("{run_id}", "{dataset}") / "audit_summary.csv",
    log:
        log_of("audit_pseudo_masks/{run_id}_{dataset}"),
    benchmark:
        benchmark_of("audit_pseudo_masks/{run_id}_{dataset}")
    params:
        **remade_when("inference.pseudo_mask_audit", "audit-pseudo-masks"),
    shell:
        lesion("audit-pseudo-masks {wildcards.run_id:q} {wildcards.dataset:q}")
