# A trained segmenter's masks for a whole dataset that the classifiers read.


def pseudo_mask_inputs(wildcards):
    run = SEGMENTERS[wildcards.run_id]
    return [
        run_dir(run) / "weights.safetensors",
        *harmonized([wildcards.dataset], run.spec.model.image_size),
        *foundation(run),
    ]


rule pseudo_masks:
    input:
        pseudo_mask_inputs,
    output:
        multiext(
            str(LAYOUT.root / "pseudo_masks" / "{run_id}" / "{dataset}") + "/",
            "probabilities.npy",
            "masks.npy",
            "masks.csv",
        ),
    log:
        log_of("pseudo_masks/{run_id}_{dataset}"),
    benchmark:
        benchmark_of("pseudo_masks/{run_id}_{dataset}")
    threads: SETTINGS.compute.threads
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
    params:
        root=LAYOUT.root,
        device=DEVICE,
        settings=given("scoring"),
        run=lambda wildcards: LAYOUT.run("segmentation", wildcards.run_id),
        code=code("inference.pseudo_masks"),
    shell:
        "lesion pseudo-masks --segmenter {params.run} {wildcards.dataset} --root {params.root}"
        " --device {params.device} --settings {params.settings:q} > {log} 2>&1"
