# Training of classifiers, and joint fine-tuning of a segmenter with a classifier.


def masks_for(run, datasets):
    """Pseudo-masks that a classification run reads, and the pixels that they are aligned with."""
    if run.segmenter_run is None:
        return []
    segmenter = segmenter_of(run)
    folders = [LAYOUT.pseudo_masks(segmenter.run_id, dataset) for dataset in sorted(set(datasets))]
    return [folder / name for folder in folders for name in ("probabilities.npy", "masks.csv")]


def classifier_inputs(wildcards):
    run = CLASSIFIERS[wildcards.run_id]
    return [
        *harmonized(run.spec.train_on, run.spec.model.image_size),
        *masks_for(run, run.spec.train_on),
        LAYOUT.reference,
    ]


rule train_classifier:
    input:
        classifier_inputs,
    output:
        **run_outputs(),
    log:
        ANY_RUN / "log.txt",
    benchmark:
        benchmark_of("train_classifier/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(CLASSIFIERS),
    threads: SETTINGS.compute.threads * SETTINGS.compute.processes
    resources:
        gpu=GPU * SETTINGS.compute.processes,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given_run,
        code=code("training.classification"),
    shell:
        "lesion train --root {params.root:q} --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


def joint_parts(run):
    """Segmenter, classifier, and the files both need to be loaded."""
    segmenter, classifier = RUNS[run.segmenter_run], RUNS[run.classifier_run]
    files = [
        run_dir(part) / name for part in (segmenter, classifier) for name in ("settings.yaml", "weights.safetensors")
    ]
    return segmenter, classifier, [*files, *foundation(segmenter)]


def joint_inputs(wildcards):
    run = JOINT[wildcards.run_id]
    segmenter, classifier, files = joint_parts(run)
    return [
        *files,
        *harmonized(run.spec.train_on, segmenter.spec.model.image_size),
        *harmonized(run.spec.train_on, classifier.spec.model.image_size),
        *masks_for(run, run.spec.train_on),
        LAYOUT.reference,
    ]


rule train_joint:
    input:
        joint_inputs,
    output:
        **run_outputs(),
    log:
        ANY_RUN / "log.txt",
    benchmark:
        benchmark_of("train_joint/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(JOINT),
    threads: SETTINGS.compute.threads * SETTINGS.compute.processes
    resources:
        gpu=GPU * SETTINGS.compute.processes,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given_run,
        code=code("training.joint"),
    shell:
        "lesion train --root {params.root:q} --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


def scoring_files(run):
    """What predictions of a classification run need: test images, and validation images for the temperature."""
    shown = [*SETTINGS.scoring.classification_on, *run.spec.train_on]
    return [
        run_dir(run) / "weights.safetensors",
        *harmonized(shown, run.spec.model.image_size),
        *masks_for(run, shown),
        *([LAYOUT.catalog] if run.spec.masks == "true" else []),
    ]


def classification_score_inputs(wildcards):
    return scoring_files(CLASSIFIERS[wildcards.run_id])


rule score_classifier:
    input:
        classification_score_inputs,
    output:
        scores=ANY_RUN / "scores.parquet",
        calibration=ANY_RUN / "scores_calibration.json",
    log:
        log_of("score_classifier/{place}/{run_id}"),
    benchmark:
        benchmark_of("score_classifier/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(CLASSIFIERS),
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
        code=code("inference.score_classification"),
    shell:
        "lesion score classification --run {params.run:q} --root {params.root:q} --out {output.scores:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


def derived_score_inputs(wildcards):
    return [path for source in DERIVED[wildcards.run_id].source_runs for path in scoring_files(CLASSIFIERS[source])]


rule score_derived:
    input:
        derived_score_inputs,
    output:
        scores=ANY_RUN / "scores.parquet",
        calibration=ANY_RUN / "scores_calibration.json",
        settings=ANY_RUN / "settings.yaml",
        provenance=ANY_RUN / "provenance.json",
    log:
        log_of("score_derived/{place}/{run_id}"),
    benchmark:
        benchmark_of("score_derived/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(DERIVED),
    threads: SETTINGS.compute.threads
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=lambda wildcards: given_run(wildcards, "scoring"),
        code=code("inference.score_derived"),
    shell:
        "lesion score-derived --root {params.root:q} --out {output.scores:q} --device {params.device:q}"
        " --settings {params.settings:q} > {log:q} 2>&1"


def joint_score_inputs(wildcards):
    run = JOINT[wildcards.run_id]
    segmenter, classifier, files = joint_parts(run)
    shown = [*SETTINGS.scoring.classification_on, *run.spec.train_on]
    tested = {
        "segmentation": [
            LAYOUT.catalog,
            *harmonized(SETTINGS.scoring.segmentation_on, segmenter.spec.model.image_size),
        ],
        "classification": [
            *harmonized(shown, segmenter.spec.model.image_size),
            *harmonized(shown, classifier.spec.model.image_size),
        ],
    }
    return [run_dir(run) / "weights.safetensors", *files, *tested[wildcards.kind]]


rule score_joint:
    input:
        joint_score_inputs,
    output:
        ANY_RUN / "scores_{kind}.parquet",
    log:
        log_of("score_joint/{place}/{run_id}_{kind}"),
    benchmark:
        benchmark_of("score_joint/{place}/{run_id}_{kind}")
    wildcard_constraints:
        run_id=one_of(JOINT),
        kind="segmentation|classification",
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
        code=[code("inference.score_segmentation"), code("inference.score_classification")],
    shell:
        "lesion score {wildcards.kind:q} --run {params.run:q} --root {params.root:q} --out {output:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"
