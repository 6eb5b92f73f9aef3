"""dvc.yaml, made from Snakemake's own graph: coarse stages, so that DVC stores and shares what Snakemake computed.

Nothing is written by hand but where a folder belongs (``FOLDERS``). Inputs, code and parameters of a stage are those of
its rules, so the two graphs cannot drift apart: a test makes the file anew and compares.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from lesion_core.errors import SettingsError
from lesion_core.files import write_text
from lesion_core.record.provenance import PACKAGE, code_files, data_files

REPOSITORY = PACKAGE.parent
# Where the rules' outputs lie under results/<profile>/ -> the stage that they belong to.
FOLDERS = {
    "made": "download",
    "downloads": "download",
    "data": "catalog",
    "catalog/images.parquet": "catalog",
    "catalog/edges.parquet": "catalog",
    "catalog/report.json": "catalog",
    "splits": "splits",
    "harmonized": "harmonize",
    "weights": "weights",
    "runs/segmentation": "segmentation",
    "pseudo_masks": "pseudo_masks",
    "runs/classification": "classification",
    "runs/joint": "joint",
    "runs/derived": "joint",
    "runs/ablations": "ablations",
    "explain": "statistics",
    "robustness": "statistics",
    "scores": "statistics",
    "tables": "statistics",
    "statistics": "statistics",
    "ledger": "statistics",
    "figures": "report",
    "report.html": "report",
    "summary": "report",
    "manifest.json": "report",
}
# Not outputs of rules, but needed where results arrive: Snakemake's notes, and the measured times.
BESIDE = {"report": ("benchmarks", "snapshot.json")}
# Parts of a rule's settings -> the keys of params.yaml that they are made of.
MADE_OF = {
    "run": ("bases", "methods", "matrix", "harmonization", "extraction", "compute"),
    "plan": ("tables", "bases", "methods", "matrix", "statistics", "ledger", "report"),
}
WHOLE = ("bases", "methods", "tables")  # sections whose keys are names; DVC compares them key by key all the same
HEADER = """\
# Made by `lesion dvc-stages` from Snakemake's graph; do not edit. `snakemake` computes, DVC stores and shares:
#   snakemake ... && dvc commit --force && dvc push        and elsewhere        dvc pull && snakemake --dry-run
# Every output persists between runs, since Snakemake itself decides what is out of date.
"""
JOB = re.compile(
    r"^(?:local)?rule (?P<rule>\w+):\n(?P<fields>(?:    .*\n)*)(?:Shell command: (?P<command>.*)\n)?", re.MULTILINE
)
FIELD = re.compile(r"^    (\w+): (.*)$", re.MULTILINE)
RULE = re.compile(r"^\s*rule (?P<name>\w+):\n(?P<body>.*?)(?=^\s*rule |\Z)", re.MULTILINE | re.DOTALL)


def write_stages(out: Path, profile: str, project: Path = REPOSITORY) -> None:
    """Write dvc.yaml for a profile's graph.

    Args:
        out: dvc.yaml.
        profile: whose graph; ``mini`` and ``paper`` differ from ``smoke`` in datasets and runs.
        project: the checkout.

    Raises:
        SettingsError: Snakemake refuses the settings, or an output belongs to no stage.
    """
    import yaml

    text = yaml.safe_dump(stages(profile, project), sort_keys=False, width=200)
    write_text(out, HEADER + text)


def stages(profile: str, project: Path = REPOSITORY) -> dict[str, Any]:
    """The content of dvc.yaml."""
    graph = rule_graph(profile, project)
    sources = _sources(project)
    found: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in dict.fromkeys(FOLDERS.values())}
    for job in graph:
        folders = {_folder(name, profile) for name in job["outputs"]}
        stage = found[FOLDERS[min(folders)]]
        stage["outs"] |= folders
        stage["rules"].add(job["rule"])
        stage["sections"].update(job["sections"])
        for name in job["inputs"]:
            if name.startswith(f"results/{profile}/"):
                stage["deps"].add(_folder(name, profile))
    content: dict[str, Any] = {"stages": {}}
    for name, parts in found.items():
        if not parts["rules"]:
            continue
        code = set().union(*(sources[rule] for rule in parts["rules"]))
        deps = [f"results/{profile}/{folder}" for folder in sorted(parts["deps"] - parts["outs"])]
        outs = [*sorted(parts["outs"]), *BESIDE.get(name, ())]
        content["stages"][name] = {
            "cmd": f"snakemake --cores all --resources gpu=1 --config profile={profile} -- stage_{name}",
            "deps": [*deps, *sorted(code)],
            "params": _parameters(parts["sections"], profile, project),
            "outs": [{f"results/{profile}/{folder}": {"persist": True}} for folder in outs],
        }
    content["metrics"] = [f"results/{profile}/summary/metrics.json"]
    # A folder: one curve for each run in it, whatever runs the matrix has.
    content["plots"] = [{f"results/{profile}/summary/curves": {"x": "epoch", "y": "validation"}}]
    return content


def rule_graph(profile: str, project: Path = REPOSITORY) -> list[dict[str, Any]]:
    """All jobs of a profile as Snakemake plans them, done or not: {rule, outputs, inputs, sections of the settings}.

    Raises:
        SettingsError: Snakemake refuses the settings.
    """
    targets = [f"stage_{name}" for name in dict.fromkeys(FOLDERS.values())]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--printshellcmds", "--forceall", "--nocolor"]
    command += ["--config", f"profile={profile}", "--", *targets]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SettingsError(f"Snakemake cannot plan: {done.stderr.strip()[-500:]}", file=project / "Snakefile")
    jobs = []
    for match in JOB.finditer(done.stdout + done.stderr):
        fields = dict(FIELD.findall(match["fields"]))
        jobs.append(
            {
                "rule": match["rule"],
                "outputs": fields.get("output", "").split(", "),
                "inputs": [name for name in fields.get("input", "").split(", ") if name],
                "sections": _sections(match["command"] or ""),
            }
        )
    return [job for job in jobs if job["outputs"][0].startswith(f"results/{profile}/")]


def _sections(command: str) -> list[str]:
    words = shlex.split(command)
    if "--settings" not in words:
        return []
    return sorted(json.loads(words[words.index("--settings") + 1]))


def _folder(name: str, profile: str) -> str:
    inside = name.removeprefix(f"results/{profile}/")
    for folder in FOLDERS:
        if inside == folder or inside.startswith(f"{folder}/"):
            return folder
    raise SettingsError(
        f"'{name}' belongs to no stage of dvc.yaml", remedy="add its folder to FOLDERS in lesion_core/sharing/dvc.py"
    )


def _sources(project: Path) -> dict[str, list[str]]:
    """Rule -> its rule file, all modules that its code identity covers, and the package's files that these name."""
    sources = {}
    for path in sorted((project / "workflow" / "rules").glob("*.smk")):
        for match in RULE.finditer(path.read_text(encoding="utf-8")):
            entries = re.findall(r'code\("([\w.]+)"\)', match["body"])
            names = [f"lesion_core.{entry}" for entry in entries]
            files = {file for name in names for file in (*code_files(name).values(), *data_files(name))}
            code = sorted(file.relative_to(REPOSITORY).as_posix() for file in files)
            sources[match["name"]] = [path.relative_to(project).as_posix(), *code]
    return sources


def _parameters(sections: set[str], profile: str, project: Path) -> list[dict[str, list[str]]]:
    """Keys of params.yaml and of the profile's overlay that a stage depends on, those of flat sections one by one."""
    import yaml

    wanted = sorted({key for section in sections for key in MADE_OF.get(section, (section,))})
    parameters = []
    for name in ("params.yaml", f"workflow/profiles/{profile}.yaml"):
        content = yaml.safe_load((project / name).read_text(encoding="utf-8"))
        keys = []
        for key in wanted:
            value = content.get(key, ...)
            if isinstance(value, dict) and key not in WHOLE:
                keys += [f"{key}.{inner}" for inner in value]
            elif value is not ...:
                keys.append(key)
        if keys:
            parameters.append({name: keys})
    return parameters
