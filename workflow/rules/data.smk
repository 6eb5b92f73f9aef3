# download -> unpack -> catalog -> splits -> reference histogram -> harmonized pixels
from lesion_core.acquire.own_content import own_content
from lesion_core.catalog.human_reference import files_of, tables_folder

if SETTINGS.synthetic is not None:

    rule synthetic:
        output:
            LAYOUT.made / "SHA256SUMS",
        log:
            log_of("synthetic"),
        benchmark:
            benchmark_of("synthetic")
        params:
            **remade_when("acquire.synthetic.archives", "synthetic"),
        shell:
            lesion("synthetic")


def mirror_files(wildcards):
    if SETTINGS.synthetic is not None:
        return [LAYOUT.made / "SHA256SUMS"]
    sums = Path(str(SETTINGS.mirror)) / "SHA256SUMS"
    return [sums] if sums.is_file() else []


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
        **remade_when("acquire.download", "download"),
    shell:
        lesion("download {wildcards.dataset:q}")


rule unpack:
    input:
        LAYOUT.downloads("{dataset}") / "files.json",
    output:
        LAYOUT.data("{dataset}") / RECORD,
    log:
        log_of("unpack/{dataset}"),
    benchmark:
        benchmark_of("unpack/{dataset}")
    params:
        **remade_when("acquire.unpack"),
    shell:
        lesion("unpack {wildcards.dataset:q}")


CUSTOM = SETTINGS.data.custom
CUSTOM_MEMORY = Path(".snakemake") / f"own_files-{SETTINGS.profile}.json"
# they must be there; whether they changed is told by their content, not by the times of folders
CUSTOM_FILES = [Path(path).expanduser() for path in (CUSTOM.csv, CUSTOM.images, CUSTOM.masks) if path] if CUSTOM else []


rule catalog:
    input:
        [LAYOUT.data(dataset) / RECORD for dataset in DATASETS],
        ancient(CUSTOM_FILES),
    output:
        LAYOUT.catalog,
        LAYOUT.edges,
        LAYOUT.data_report,
    log:
        log_of("catalog"),
    benchmark:
        benchmark_of("catalog")
    threads: 2
    resources:
        **LARGE,
    params:
        **remade_when("catalog.table", "catalog"),
        own=lambda wildcards: own_content(CUSTOM, CUSTOM_MEMORY) if CUSTOM else "",
    shell:
        lesion("catalog")


LOCAL_MIRROR = SETTINGS.synthetic is None and SETTINGS.mirror is not None and "://" not in SETTINGS.mirror


# Annotators against each other (IMA++); a local mirror without its tables leaves it empty.
rule human_reference:
    input:
        files_of(tables_folder(Path(SETTINGS.mirror).expanduser())) if LOCAL_MIRROR else [],
    output:
        LAYOUT.human_reference,
    log:
        log_of("human_reference"),
    benchmark:
        benchmark_of("human_reference")
    params:
        **remade_when("catalog.human_reference acquire.readers.imaplusplus", "human-reference"),
    shell:
        lesion("human-reference")


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
        **remade_when("catalog.splits", "splits"),
    shell:
        lesion("splits")


DATA_REPORT = [
    *[LAYOUT.overview(suffix) for suffix in ("csv", "pdf", "png")],
    *[LAYOUT.colour_figure(suffix) for suffix in ("pdf", "png")],
    *[LAYOUT.large_groups(suffix) for suffix in ("pdf", "png")],
]


rule reference:
    input:
        LAYOUT.catalog,
        LAYOUT.certificate,
        [LAYOUT.split(dataset) for dataset in SETTINGS.data.datasets],
    output:
        LAYOUT.reference,
        LAYOUT.colours,
        LAYOUT.reference.with_name(RECORD),
    log:
        log_of("reference"),
    benchmark:
        benchmark_of("reference")
    threads: 2
    resources:
        **LARGE,
    params:
        **remade_when("pixels.reference", "reference"),
    shell:
        lesion("reference")


rule data_report:
    input:
        LAYOUT.catalog,
        LAYOUT.data_report,
        LAYOUT.colours,
    output:
        DATA_REPORT,
    log:
        log_of("data_report"),
    benchmark:
        benchmark_of("data_report")
    params:
        **remade_when("report.data_report"),
    shell:
        lesion("data-report")


rule harmonize:
    input:
        LAYOUT.catalog,
        LAYOUT.reference,
        LAYOUT.split("{dataset}"),
    output:
        multiext(
            f"{LAYOUT.harmonized('{dataset}', '{size}')}/",
            "images.npy",
            "masks.npy",
            "index.csv",
            "contact_sheet.png",
            "statistics.csv",
            RECORD,
        ),
    log:
        log_of("harmonize/{dataset}_{size}"),
    benchmark:
        benchmark_of("harmonize/{dataset}_{size}")
    priority: 25  # training that others wait for is 30, other training 20 or less
    threads: 1  # there are more of these jobs than cores: none must wait for two free ones
    resources:
        **LARGE,
    params:
        **remade_when("pixels.harmonized_arrays", "harmonize"),
    shell:
        lesion("harmonize {wildcards.dataset:q} {wildcards.size:q}")
