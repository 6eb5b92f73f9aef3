# The score store: every table, test, interval and figure is computed from these two files.


def score_files(wildcards):
    single = SEGMENTERS if wildcards.kind == "segmentation" else CLASSIFIERS
    derived = DERIVED if wildcards.kind == "classification" else {}
    return [
        *[run_dir(run) / "scores.parquet" for run in (*single.values(), *derived.values())],
        *[run_dir(run) / f"scores_{wildcards.kind}.parquet" for run in JOINT.values()],
    ]


rule gather_scores:
    input:
        score_files,
    output:
        LAYOUT.scores("{kind}"),
    log:
        log_of("gather_scores/{kind}"),
    benchmark:
        benchmark_of("gather_scores/{kind}")
    wildcard_constraints:
        kind="segmentation|classification",
    params:
        code=code("scores"),
    shell:
        "lesion gather {wildcards.kind:q} --out {output:q} {input:q} > {log:q} 2>&1"
