# The score store: every table, test, interval and figure is computed from its two files.


def segmenter_score_inputs(run):
    """Test images, and validation images for what confidence is worth."""
    return [
        weights_of(run),
        LAYOUT.catalog,
        *pixels(run, [*SETTINGS.scoring.segmentation_on, *run.spec.train_on], run.spec.model.image_size),
        *foundation(run),
    ]


def classifier_score_inputs(run):
    """Test images, and validation images for the temperature."""
    shown = [*SETTINGS.scoring.classification_on, *run.spec.train_on]
    return [
        weights_of(run),
        *pixels(run, shown, run.spec.model.image_size),
        *masks_for(run, shown),
        *([LAYOUT.catalog] if run.spec.masks == "true" else []),
    ]


def joint_score_inputs(run):
    segmenter, classifier, files = joint_parts(run)
    shown = [*SETTINGS.scoring.classification_on, *run.spec.train_on]
    return [
        weights_of(run),
        *files,
        LAYOUT.catalog,
        *pixels(
            run, [*SETTINGS.scoring.segmentation_on, *segmenter.spec.train_on, *shown], segmenter.spec.model.image_size
        ),
        *pixels(run, shown, classifier.spec.model.image_size),
    ]


def derived_score_inputs(run):
    return [path for source in run.source_runs for path in classifier_score_inputs(CLASSIFIERS[source])]


SCORED = {
    "segmentation": ("scores.parquet", "test_masks.zip", "scores_calibration.json"),
    "classification": ("scores.parquet", "scores_calibration.json"),
    "joint": (
        "scores_segmentation.parquet",
        "test_masks.zip",
        "scores_segmentation_calibration.json",
        "scores_classification.parquet",
        "scores_classification_calibration.json",
    ),
    "derived": ("scores.parquet", "scores_calibration.json", "settings.yaml", "provenance.json"),
}

# Runs that are trained in one job are scored in one job.
for kind, runs, inputs, together, modules in (
    (
        "score_segmenter",
        SEGMENTERS,
        segmenter_score_inputs,
        segmenter_inputs,
        "inference.score_segmentation inference.expected_dice",
    ),
    ("score_classifier", CLASSIFIERS, classifier_score_inputs, classifier_inputs, "inference.score_classification"),
    (
        "score_joint",
        JOINT,
        joint_score_inputs,
        joint_inputs,
        "inference.score_segmentation inference.expected_dice inference.score_classification",
    ),
    ("score_derived", DERIVED, derived_score_inputs, derived_score_inputs, "inference.score_derived"),
):
    for job, ids, _ in jobs_of(kind, runs, together):

        rule:
            name:
                job
            input:
                partial(read_by, inputs, ids),
            output:
                [folder / name for folder in folders_of(ids) for name in SCORED[next(iter(runs.values())).task]],
            log:
                log_of(job_name(kind, job)),
            benchmark:
                benchmark_of(job_name(kind, job))
            wildcard_constraints:
                run_id=one_of(runs),
            priority: 5
            threads: COMPUTE.threads
            resources:
                **computing(),
            params:
                **remade_when(modules, "score"),
                ids=partial(named, ids),
            shell:
                lesion("score {params.ids:q}")


def score_files(wildcards):
    single = SEGMENTERS if wildcards.kind == "segmentation" else {**CLASSIFIERS, **DERIVED}
    return [
        *[run_dir(run) / "scores.parquet" for run in single.values()],
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
        **remade_when("scores"),
    shell:
        "lesion gather {wildcards.kind:q} --out {output:q} {input:q} > {log:q} 2>&1"
