# Accuracy and calibration on corrupted images: what a worse camera, a hair or a cast of light costs.
TRIED = {run_id: RUNS[run_id] for run_id in matrix.tried_runs(PLAN, SETTINGS.robustness)}


def robustness_inputs(wildcards):
    run = TRIED[wildcards.run_id]
    tested = SETTINGS.scoring.classification_on
    if run.task == "joint":
        segmenter, classifier, files = joint_parts(run)
    else:
        segmenter, classifier, files = RUNS.get(run.segmenter_run), run, []
    if segmenter is not None and segmenter is not run:
        files = [*files, weights_of(segmenter), *foundation(segmenter)]
    return [
        weights_of(run),
        LAYOUT.catalog,
        *pixels(run, tested, classifier.spec.model.image_size),
        *sorted(set(files)),
    ]


rule robustness:
    input:
        robustness_inputs,
    output:
        LAYOUT.robustness("{run_id}"),
        LAYOUT.robustness("{run_id}").with_suffix(f".{RECORD}"),
    log:
        log_of("robustness/{run_id}"),
    benchmark:
        benchmark_of("robustness/{run_id}")
    priority: 5
    threads: COMPUTE.threads
    resources:
        **computing(),
    params:
        **remade_when("inference.robustness", "robustness"),
    shell:
        lesion("robustness {wildcards.run_id:q}")


rule gather_robustness:
    input:
        [LAYOUT.robustness(run_id) for run_id in TRIED],
    output:
        LAYOUT.statistics("robustness"),
    log:
        log_of("gather_robustness"),
    benchmark:
        benchmark_of("gather_robustness")
    params:
        **remade_when("inference.robustness"),
    shell:
        "lesion gather-robustness --out {output:q} {input:q} > {log:q} 2>&1"
