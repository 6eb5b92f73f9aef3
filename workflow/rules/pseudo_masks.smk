# A trained segmenter's masks for a whole dataset that the classifiers read.
from lesion_core.settings.check import WITH_MASKS


def pseudo_mask_inputs(wildcards):
    run = SEGMENTERS[wildcards.run_id]
    return [
        run_dir(run) / "weights.safetensors",
        *harmonized([wildcards.dataset], run.spec.model.image_size),
        *foundation(run),
    ]


rule pseudo_masks:
    input:
        pseudo_mask_inputs,
    output:
        multiext(
            str(LAYOUT.root / "pseudo_masks" / "{run_id}" / "{dataset}") + "/",
            "probabilities.npy",
            "masks.npy",
            "masks.csv",
            OPENED,
        ),
    log:
        log_of("pseudo_masks/{run_id}_{dataset}"),
    benchmark:
        benchmark_of("pseudo_masks/{run_id}_{dataset}")
    threads: SETTINGS.compute.threads
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given("scoring"),
        run=lambda wildcards: run_dir(RUNS[wildcards.run_id]),
        code=code("inference.pseudo_masks"),
    shell:
        "lesion pseudo-masks --segmenter {params.run:q} {wildcards.dataset:q} --root {params.root:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


def audits():
    """Pseudo-masks that classifiers are scored with and that published masks can judge."""
    read = {run.segmenter_run for run in (*CLASSIFIERS.values(), *JOINT.values()) if run.segmenter_run}
    tested = sorted(set(SETTINGS.scoring.classification_on) & set(WITH_MASKS) - {"custom"})
    return [LAYOUT.pseudo_masks(run_id, name) / "audit_summary.csv" for run_id in sorted(read) for name in tested]


rule audit_pseudo_masks:
    input:
        LAYOUT.root / "pseudo_masks" / "{run_id}" / "{dataset}" / "masks.csv",
        LAYOUT.catalog,
    output:
        LAYOUT.root / "pseudo_masks" / "{run_id}" / "{dataset}" / "audit.csv",
        LAYOUT.root / "pseudo_masks" / "{run_id}" / "{dataset}" / "audit_summary.csv",
    log:
        log_of("audit_pseudo_masks/{run_id}_{dataset}"),
    benchmark:
        benchmark_of("audit_pseudo_masks/{run_id}_{dataset}")
    params:
        root=LAYOUT.root,
        size=lambda wildcards: SEGMENTERS[wildcards.run_id].spec.model.image_size,
        settings=given("statistics"),
        code=code("inference.pseudo_mask_audit"),
    shell:
        "lesion audit-pseudo-masks --segmenter {wildcards.run_id:q} {wildcards.dataset:q} --size {params.size:q}"
        " --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"
