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
        tested = [path for side in sorted(sides) for path in pixels(run, SETTINGS.scoring.classification_on, side)]
        return [weights_of(run), LAYOUT.catalog, *files, *tested]
    segments = run.task == "segmentation"
    tested = SETTINGS.scoring.segmentation_on if segments else SETTINGS.scoring.classification_on
    return [
        weights_of(run),
        LAYOUT.catalog,
        *pixels(run, tested, run.spec.model.image_size),
        *(foundation(run) if segments else masks_for(run, tested)),
    ]


rule explain:
    input:
        explain_inputs,
    output:
        LAYOUT.explained("{run_id}", "csv"),
        LAYOUT.explained("{run_id}", "npz"),
    log:
        log_of("explain/{run_id}"),
    benchmark:
        benchmark_of("explain/{run_id}")
    priority: 5
    threads: COMPUTE.threads
    resources:
        **computing(),
    params:
        **remade_when("explain.score", "explain"),
    shell:
        lesion("explain {wildcards.run_id:q}")
