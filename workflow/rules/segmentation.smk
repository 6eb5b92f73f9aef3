# Training of segmenters; their test masks are opened by the scoring stage alone (score_* and explain).


def segmentation_inputs(wildcards):
    run = RUNS[wildcards.run_id]
    return [
        *harmonized(run.spec.train_on, run.spec.model.image_size),
        *foundation(run),
        LAYOUT.reference,
    ]


rule train_segmenter:
    input:
        segmentation_inputs,
    output:
        **run_outputs(),
    log:
        ANY_RUN / "log.txt",
    benchmark:
        benchmark_of("train_segmenter/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(SEGMENTERS),
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
        code=code("training.segmentation"),
    shell:
        "lesion train --root {params.root:q} --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


def segmentation_score_inputs(wildcards):
    run = SEGMENTERS[wildcards.run_id]
    return [
        run_dir(run) / "weights.safetensors",
        LAYOUT.catalog,
        *harmonized(SETTINGS.scoring.segmentation_on, run.spec.model.image_size),
        *foundation(run),
    ]


rule score_segmenter:
    input:
        segmentation_score_inputs,
    output:
        scores=ANY_RUN / "scores.parquet",
        masks=ANY_RUN / "test_masks.zip",
    log:
        log_of("score_segmenter/{place}/{run_id}"),
    benchmark:
        benchmark_of("score_segmenter/{place}/{run_id}")
    wildcard_constraints:
        run_id=one_of(SEGMENTERS),
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
        code=code("inference.score_segmentation"),
    shell:
        "lesion score segmentation --run {params.run:q} --root {params.root:q} --out {output.scores:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"
