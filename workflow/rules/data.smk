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
        lesion("download {wildcards.dataset:q} --together")


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


def material_of(wildcards):
    """The settings that pixels and splits of a protocol under a rule depend on."""
    return canonical_json(HOMES.materials[wildcards.home].model_dump(mode="json"))


rule splits:
    input:
        LAYOUT.catalog,
        LAYOUT.edges,
    output:
        [LAYOUT.split("{home}", dataset) for dataset in SETTINGS.data.datasets],
        LAYOUT.certificate("{home}"),
    log:
        log_of("splits/{home}"),
    benchmark:
        benchmark_of("splits/{home}")
    params:
        **remade_when("catalog.splits"),
        material=lambda wildcards: canonical_json(HOMES.materials[wildcards.home].splits.model_dump(mode="json")),
    shell:
        lesion("splits {wildcards.home:q}")


DATA_REPORT = [
    *[LAYOUT.overview(suffix) for suffix in ("csv", "pdf", "png")],
    *[LAYOUT.colour_figure(suffix) for suffix in ("pdf", "png")],
    *[LAYOUT.large_groups(suffix) for suffix in ("pdf", "png")],
]


def splits_of(home):
    """Split tables of a folder of pixels, and their certificate."""
    folder = HOMES.splits(home)
    return [LAYOUT.certificate(folder), *[LAYOUT.split(folder, dataset) for dataset in SETTINGS.data.datasets]]


rule reference:
    input:
        LAYOUT.catalog,
        lambda wildcards: splits_of(wildcards.home),
    output:
        LAYOUT.reference("{home}"),
        LAYOUT.reference("{home}").with_name(RECORD),
    log:
        log_of("reference/{home}"),
    benchmark:
        benchmark_of("reference/{home}")
    threads: 2
    resources:
        **LARGE,
    params:
        **remade_when("pixels.reference"),
        material=material_of,
    shell:
        lesion("reference {wildcards.home:q}")


# colours before and after: of the pixels whose histogram is specified, where a run sees such
SHOWN_HOME = next(
    (home for home in PLAN.protocols if HOMES.materials[home].harmonization.histogram == "specification"),
    next(iter(PLAN.protocols)),
)


rule colours:
    input:
        LAYOUT.catalog,
        splits_of(SHOWN_HOME),
        reference_of(SHOWN_HOME),
    output:
        LAYOUT.colours,
    log:
        log_of("colours"),
    benchmark:
        benchmark_of("colours")
    threads: 2
    resources:
        **LARGE,
    params:
        **remade_when("pixels.reference"),
        home=SHOWN_HOME,
        material=canonical_json(HOMES.materials[SHOWN_HOME].model_dump(mode="json")),
    shell:
        lesion("colours {params.home:q}")


rule data_report:
    input:
        LAYOUT.catalog,
        LAYOUT.data_report,
        LAYOUT.colours,
    output:
        [shown_in_report(path, "data", "Data") if path.suffix == ".png" else path for path in DATA_REPORT],
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
        lambda wildcards: LAYOUT.split(HOMES.splits(wildcards.home), wildcards.dataset),
        lambda wildcards: reference_of(wildcards.home),
    output:
        multiext(
            f"{LAYOUT.pixels('{home}', '{dataset}', '{size}')}/",
            "images.npy",
            "masks.npy",
            "index.csv",
            "contact_sheet.png",
            "statistics.csv",
            RECORD,
        ),
    log:
        log_of("harmonize/{home}/{dataset}_{size}"),
    benchmark:
        benchmark_of("harmonize/{home}/{dataset}_{size}")
    priority: 25  # training that others wait for is 30, other training 20 or less
    threads: 1  # there are more of these jobs than cores: none must wait for two free ones
    resources:
        **LARGE,
    params:
        **remade_when("pixels.harmonized_arrays"),
        material=material_of,
    shell:
        lesion("harmonize {wildcards.home:q} {wildcards.dataset:q} {wildcards.size:q}")
