# Accuracy and calibration on corrupted photographs: what a worse camera, a hair or a cast of light costs.
from lesion_core.inference.robustness import tried_runs

TRIED = {run_id: RUNS[run_id] for run_id in tried_runs(PLAN, SETTINGS.robustness)}


def robustness_inputs(wildcards):
    run = TRIED[wildcards.run_id]
    tested = SETTINGS.scoring.classification_on
    if run.task == "joint":
        segmenter, classifier, files = joint_parts(run)
    else:
        segmenter, classifier, files = RUNS.get(run.segmenter_run), run, []
    if segmenter is not None and segmenter is not run:
        files = [*files, run_dir(segmenter) / "weights.safetensors", *foundation(segmenter)]
    return [
        run_dir(run) / "weights.safetensors",
        LAYOUT.catalog,
        *harmonized(tested, classifier.spec.model.image_size),
        *sorted(set(files)),
    ]


rule robustness:
    input:
        robustness_inputs,
    output:
        scores=LAYOUT.root / "robustness" / "{run_id}.csv",
        opened=LAYOUT.root / "robustness" / f"{{run_id}}.{OPENED}",
    log:
        log_of("robustness/{run_id}"),
    benchmark:
        benchmark_of("robustness/{run_id}")
    threads: SETTINGS.compute.threads
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given("robustness", "scoring"),
        run=lambda wildcards: run_dir(RUNS[wildcards.run_id]),
        code=code("inference.robustness"),
    shell:
        "lesion robustness --run {params.run:q} --root {params.root:q} --out {output.scores:q}"
        " --device {params.device:q} --settings {params.settings:q} > {log:q} 2>&1"


rule gather_robustness:
    input:
        [LAYOUT.root / "robustness" / f"{run_id}.csv" for run_id in TRIED],
    output:
        LAYOUT.root / "statistics" / "robustness.csv",
    log:
        log_of("gather_robustness"),
    benchmark:
        benchmark_of("gather_robustness")
    params:
        code=code("inference.robustness"),
    shell:
        "lesion gather-robustness --out {output:q} {input:q} > {log:q} 2>&1"
