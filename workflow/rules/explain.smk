# Where networks look: maps of test images against the true masks, which this rule opens as scoring does.
EXPLAINED = {
    run_id: RUNS[run_id]
    for name in SETTINGS.explain.methods
    for run_id in PLAN.runs.get(name, [])[: SETTINGS.explain.seeds]
}


def explain_inputs(wildcards):
    run = EXPLAINED[wildcards.run_id]
    if run.task == "joint":
        segmenter, classifier, files = joint_parts(run)
        sides = {part.spec.model.image_size for part in (segmenter, classifier)}
        tested = [path for side in sorted(sides) for path in harmonized(SETTINGS.scoring.classification_on, side)]
        return [run_dir(run) / "weights.safetensors", LAYOUT.catalog, *files, *tested]
    segments = run.task == "segmentation"
    tested = SETTINGS.scoring.segmentation_on if segments else SETTINGS.scoring.classification_on
    return [
        run_dir(run) / "weights.safetensors",
        LAYOUT.catalog,
        *harmonized(tested, run.spec.model.image_size),
        *(foundation(run) if segments else masks_for(run, tested)),
    ]


rule explain:
    input:
        explain_inputs,
    output:
        scores=LAYOUT.root / "explain" / "{run_id}.csv",
        examples=LAYOUT.root / "explain" / "{run_id}.npz",
    log:
        log_of("explain/{run_id}"),
    benchmark:
        benchmark_of("explain/{run_id}")
    threads: SETTINGS.compute.threads
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given("explain", "scoring"),
        run=lambda wildcards: run_dir(EXPLAINED[wildcards.run_id]),
        code=code("explain.score"),
    shell:
        "lesion explain --run {params.run:q} --root {params.root:q} --out {output.scores:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"
