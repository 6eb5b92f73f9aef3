# Coarse targets, one for each part of the chain: `snakemake stage_splits`. dvc.yaml has a stage for each, and
# what lies in a stage's folders is made by its target and those before it.


def finished_runs(place):
    """What training and scoring leave of each run of one folder under ``runs/``."""
    return [
        run_dir(run) / name
        for run in RUNS.values()
        if run.place == place
        for name in (*SCORED[run.task], *(TRAINED if run.task != "derived" else ()))
    ]


def arrays_of_runs():
    """Pixels that runs train on and are scored on, and those that pseudo-masks are made of."""
    asked = []
    for run in [*SEGMENTERS.values(), *CLASSIFIERS.values()]:
        datasets = {*run.spec.train_on, *getattr(SETTINGS.scoring, f"{run.task}_on")}
        asked.append((datasets, run))
        if run.task == "classification" and run.segmenter_run:
            asked.append((datasets, RUNS[run.segmenter_run]))
    return sorted({str(path) for datasets, run in asked for path in pixels(run, datasets, run.spec.model.image_size)})


def masks_of_runs(runs):
    """Pseudo-masks that classification runs train on and are scored with."""
    asked = [(run, [*run.spec.train_on, *SETTINGS.scoring.classification_on]) for run in runs]
    asked += [(run, run.spec.train_on) for run in JOINT.values()]
    return sorted({str(path) for run, datasets in asked for path in masks_for(run, datasets)})


STAGES = {
    "download": [*(LAYOUT.downloads(dataset) / "files.json" for dataset in DATASETS), LAYOUT.human_reference],
    "catalog": [LAYOUT.catalog, LAYOUT.edges, LAYOUT.human_reference],
    "splits": CERTIFICATES,
    "harmonize": DATA_REPORT + arrays_of_runs(),
    "weights": sorted({str(path) for run in [*SEGMENTERS.values(), *CLASSIFIERS.values()] for path in published(run)}),
    "segmentation": finished_runs("segmentation"),
    "pseudo_masks": masks_of_runs(CLASSIFIERS.values()) + audits(),
    "classification": finished_runs("classification") + finished_runs("derived"),
    "joint": finished_runs("joint"),
    "ablations": finished_runs("ablations"),
    "statistics": [
        rules.tables.output,
        rules.statistics.output,
        rules.ledger.output,
        LAYOUT.statistics("subgroups"),
        LAYOUT.statistics("robustness"),
    ],
    "report": [LAYOUT.report, LAYOUT.snapshot],
}

for stage, files in STAGES.items():

    rule:
        name:
            f"stage_{stage}"
        input:
            files,
