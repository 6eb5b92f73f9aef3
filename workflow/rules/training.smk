# Training of runs. Their test masks are opened by scoring alone (score_* and explain).


def segmenter_inputs(run):
    return [*pixels(run, run.spec.train_on, run.spec.model.image_size), *published(run), *reference_of(run.pixels)]


def classifier_inputs(run):
    return [
        *pixels(run, run.spec.train_on, run.spec.model.image_size),
        *masks_for(run, run.spec.train_on),
        *published(run),
        *reference_of(run.pixels),
    ]


def joint_inputs(run):
    segmenter, classifier, files = joint_parts(run)
    masked = segmenter.spec.train_on if run.spec.segmentation_from == "segmenter_images" else []
    return [
        *files,
        *pixels(run, [*masked, *run.spec.train_on], segmenter.spec.model.image_size),
        *pixels(run, run.spec.train_on, classifier.spec.model.image_size),
        *masks_for(run, run.spec.train_on),
        *reference_of(run.pixels),
    ]


# What a training leaves; the checkpoint is no output, so that it survives an interrupted job.
TRAINED = ("settings.yaml", "weights.safetensors", "history.csv", "provenance.json")
# Several processes that share each batch of a training are torchrun's.
TORCHRUN = f"torchrun --standalone --nproc-per-node {COMPUTE.processes} -m lesion_core.cli"
TRAIN = f"{'lesion' if COMPUTE.processes == 1 else TORCHRUN} train {{params.ids:q}} --root {{params.root:q}} --log"

for kind, runs, inputs, module in (
    ("train_segmenter", SEGMENTERS, segmenter_inputs, "training.segmentation"),
    ("train_classifier", CLASSIFIERS, classifier_inputs, "training.classification"),
    ("train_joint", JOINT, joint_inputs, "training.joint"),
):
    for job, ids, urgency in jobs_of(kind, runs, inputs):

        rule:
            name:
                job
            input:
                partial(read_by, inputs, ids),
            output:
                [folder / name for folder in folders_of(ids) for name in TRAINED],
            log:
                [folder / "log.txt" for folder in folders_of(ids)],
            benchmark:
                benchmark_of(job_name(kind, job))
            wildcard_constraints:
                run_id=one_of(runs),
            priority: urgency
            threads: COMPUTE.threads * COMPUTE.processes
            resources:
                **training(ids),
            params:
                **remade_when(module, "train"),
                ids=partial(named, ids),
                root=LAYOUT.root,
            shell:
                TRAIN
