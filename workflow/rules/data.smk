# download -> unpack -> catalog -> splits -> reference histogram -> harmonized pixels
from lesion_core.acquire.own_content import own_content

if SETTINGS.synthetic is not None:

    rule synthetic:
        output:
            LAYOUT.made / "SHA256SUMS",
        log:
            log_of("synthetic"),
        benchmark:
            benchmark_of("synthetic")
        params:
            made=LAYOUT.made,
            settings=given("synthetic"),
            code=code("acquire.synthetic.archives"),
        shell:
            "lesion synthetic --out {params.made:q} --settings {params.settings:q} > {log:q} 2>&1"


def mirror_files(wildcards):
    if SETTINGS.synthetic is not None:
        return [LAYOUT.made / "SHA256SUMS"]
    sums = Path(str(SETTINGS.mirror)) / "SHA256SUMS"
    return [sums] if sums.is_file() else []


def download_settings(wildcards):
    sections = SETTINGS.model_dump(mode="json")
    mirror = str(LAYOUT.made) if SETTINGS.synthetic is not None else SETTINGS.mirror
    return canonical_json({"mirror": mirror, "data": {**sections["data"], "custom": None}})


rule download:
    input:
        mirror_files,
    output:
        LAYOUT.downloads("{dataset}") / "files.json",
    log:
        log_of("download/{dataset}"),
    benchmark:
        benchmark_of("download/{dataset}")
    params:
        settings=download_settings,
        out=lambda wildcards: LAYOUT.downloads(wildcards.dataset),
        code=code("acquire.download"),
    shell:
        "lesion download {wildcards.dataset:q} --out {params.out:q} --settings {params.settings:q} > {log:q} 2>&1"


rule unpack:
    input:
        LAYOUT.downloads("{dataset}") / "files.json",
    output:
        LAYOUT.data("{dataset}") / "manifest.csv",
    log:
        log_of("unpack/{dataset}"),
    benchmark:
        benchmark_of("unpack/{dataset}")
    params:
        downloads=lambda wildcards: LAYOUT.downloads(wildcards.dataset),
        out=lambda wildcards: LAYOUT.data(wildcards.dataset),
        code=code("acquire.unpack"),
    shell:
        "lesion unpack {wildcards.dataset:q} --downloads {params.downloads:q} --out {params.out:q} > {log:q} 2>&1"


CUSTOM = SETTINGS.data.custom
CUSTOM_MEMORY = snapshot.STATE.with_name(f"own_files-{SETTINGS.profile}.json")
# they must be there; whether they changed is told by their content, not by the times of folders
CUSTOM_FILES = [Path(path).expanduser() for path in (CUSTOM.csv, CUSTOM.images, CUSTOM.masks) if path] if CUSTOM else []


rule catalog:
    input:
        [LAYOUT.data(dataset) / "manifest.csv" for dataset in DATASETS],
        ancient(CUSTOM_FILES),
    output:
        LAYOUT.catalog,
        LAYOUT.edges,
        LAYOUT.catalog.with_name("report.json"),
    log:
        log_of("catalog"),
    benchmark:
        benchmark_of("catalog")
    threads: 2
    resources:
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        settings=given("data", "duplicates"),
        own=lambda wildcards: own_content(CUSTOM, CUSTOM_MEMORY) if CUSTOM else "",
        code=code("catalog.table"),
    shell:
        "lesion catalog --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule splits:
    input:
        LAYOUT.catalog,
        LAYOUT.edges,
    output:
        [LAYOUT.split(dataset) for dataset in SETTINGS.data.datasets],
        LAYOUT.certificate,
    log:
        log_of("splits"),
    benchmark:
        benchmark_of("splits")
    params:
        root=LAYOUT.root,
        settings=given("splits"),
        code=code("catalog.splits"),
    shell:
        "lesion splits --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


DATA_REPORT = [
    LAYOUT.colours.with_name(name)
    for name in ("overview.csv", "overview.pdf", "overview.png", "colours.pdf", "colours.png")
]


rule reference:
    input:
        LAYOUT.catalog,
        LAYOUT.certificate,
        [LAYOUT.split(dataset) for dataset in SETTINGS.data.datasets],
    output:
        LAYOUT.reference,
        LAYOUT.colours,
        LAYOUT.reference.with_name(OPENED),
    log:
        log_of("reference"),
    benchmark:
        benchmark_of("reference")
    threads: 2
    resources:
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        settings=given("harmonization"),
        code=code("pixels.reference"),
    shell:
        "lesion reference --root {params.root:q} --settings {params.settings:q} > {log:q} 2>&1"


rule data_report:
    input:
        LAYOUT.catalog.with_name("report.json"),
        LAYOUT.colours,
    output:
        DATA_REPORT,
    log:
        log_of("data_report"),
    benchmark:
        benchmark_of("data_report")
    params:
        root=LAYOUT.root,
        code=code("report.data_report"),
    shell:
        "lesion data-report --root {params.root:q} > {log:q} 2>&1"


rule harmonize:
    input:
        LAYOUT.catalog,
        LAYOUT.reference,
        LAYOUT.split("{dataset}"),
    output:
        multiext(
            str(LAYOUT.root / "harmonized" / "{dataset}" / "{size}") + "/",
            "images.npy",
            "masks.npy",
            "index.csv",
            "contact_sheet.png",
            "statistics.csv",
            OPENED,
        ),
    log:
        log_of("harmonize/{dataset}_{size}"),
    benchmark:
        benchmark_of("harmonize/{dataset}_{size}")
    threads: 2
    resources:
        mem_mb=SETTINGS.compute.memory_mb,
        runtime=SETTINGS.compute.runtime_minutes,
    params:
        root=LAYOUT.root,
        settings=given("harmonization"),
        code=code("pixels.harmonized_arrays"),
    shell:
        "lesion harmonize {wildcards.dataset:q} {wildcards.size:q} --root {params.root:q}"
        " --settings {params.settings:q} > {log:q} 2>&1"
