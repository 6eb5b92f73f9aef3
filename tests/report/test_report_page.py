"""The page: complete, well-formed, offline, proof against what its inputs say, and alive in a browser."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import zipfile
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import cv2
import numpy as np
import pyarrow as pa
import pytest
from jinja2 import UndefinedError
from material import HOME
from report_store import IMAGES, PIXEL, make_images, make_plan, make_results

from lesion_core.errors import FormatError, RunError
from lesion_core.files import read_json, read_parquet, write_json, write_parquet
from lesion_core.papers.published import published_numbers
from lesion_core.paths import Layout
from lesion_core.report.checklists import write_checklists
from lesion_core.report.formats import metric_name
from lesion_core.report.gallery import gallery_of
from lesion_core.report.html import TEMPLATES, environment, picture, source_hash
from lesion_core.report.ledger import write_ledger
from lesion_core.report.lineage import images_sha256
from lesion_core.report.page import SECTIONS, write_page
from lesion_core.report.score_store import Store
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables
from lesion_core.report.trace import trace_cell

DOI, ARXIV = "10.1234/lesion.56", "2510.17773"
PROBLEM = ("dataset", "image_id", "kind", "detail")
PLACE = ("sam_vit_table_05", "SAM-ViT (proposed)", "dice")
VOID = {"meta", "link", "br", "img", "input", "hr", "col"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = (
    "'\"></td></title><script>window.faults.push('ran')</script><img src=x onerror=window.faults.push('ran')> & more"
)


def build(root):
    plan = hostile_plan()
    make_results(root)
    make_images(root)
    change_catalog(root, licence=HOSTILE)
    report = read_json(Layout(root).catalog.with_name("report.json"))
    write_json(Layout(root).catalog.with_name("report.json"), report | {"problems": [dict.fromkeys(PROBLEM, HOSTILE)]})
    write_tables(root, plan)
    write_statistics(root, plan)
    write_ledger(root, plan)
    write_json(root / "figures" / "figures.json", [{"name": "roc", "title": HOSTILE, "caption": HOSTILE}])
    (root / "figures" / "roc.png").write_bytes(PIXEL)
    write_checklists(root, plan)
    write_page(root, plan)
    return Layout(root).report


def hostile_plan():
    """The store's plan with names that try to be markup, and a paper with all that a reference can have."""
    plan = make_plan()
    reference = plan.papers["sam_vit"].model_copy(update={"doi": DOI, "arxiv": ARXIV, "year": 2025, "note": HOSTILE})
    first, *rows = plan.tables["sam_vit_table_05"].rows
    rows = [first.model_copy(update={"label": HOSTILE}), *rows]
    tables = {
        "sam_vit_table_05": plan.tables["sam_vit_table_05"].model_copy(update={"rows": rows}),
        "sam_vit_table_08": plan.tables["sam_vit_table_08"].model_copy(update={"title": HOSTILE}),
    }
    return plan.model_copy(update={"papers": {"sam_vit": reference}, "tables": plan.tables | tables})


def change_catalog(root, **changes):
    path = Layout(root).catalog
    rows = [row | changes for row in read_parquet(path).to_pylist()]
    write_parquet(path, pa.Table.from_pylist(rows))


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(tmp_path_factory.mktemp("page"))


class Reader(HTMLParser):
    """The page as a tree; every element must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tree = [], ElementTree.TreeBuilder()

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs), f"{tag} has an attribute twice"
        self.tree.start(tag, attributes)
        if tag in VOID:
            self.tree.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"
        self.tree.end(tag)

    def handle_data(self, data):
        if self.open:
            self.tree.data(data)


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader.tree.close()


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def section(read, name):
    return read.find(f".//section[@id='{name}']")


def rows_of(read, label):
    """The cells' texts of a table."""
    [table] = read.iterfind(f".//table[@aria-label='{label}']")
    return [[text_of(cell) for cell in row.iter("td")] for row in table.find("tbody")]


def embedded(read, name):
    return json.loads(read.find(f".//script[@id='{name}']").text)


def test_page_has_every_section_table_and_picture(read):
    ids = [element.get("id") for element in read.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {*SECTIONS, *make_plan().tables, "sam_vit_table_15", "sam_vit_table_16"} <= set(ids)
    links = {link.get("href").removeprefix("#") for link in read.iter("a") if link.get("href").startswith("#")}
    assert {*SECTIONS, *make_plan().tables} <= links <= set(ids)
    assert len(list(read.iter("img"))) == 3
    assert all(image.get("alt") for image in read.iter("img"))


def test_page_opens_offline_and_links_files_beside_it(page, read):
    addresses = [e.get(key) for e in read.iter() for key in ("src", "href", "action", "srcset") if e.get(key)]
    papers = [f"https://doi.org/{DOI}", f"https://arxiv.org/abs/{ARXIV}"]  # followed on a click alone
    others = [address for address in addresses if not address.startswith(("data:", "#"))]
    assert [address for address in others if ":" in address] == papers
    files = {address for address in others if ":" not in address} - {"figures/roc.pdf"}  # made by another rule
    assert {"ledger/ledger.csv", "tables/sam_vit_table_05.csv", "statistics/tests.csv"} <= files
    assert all((page.parent / name).is_file() for name in files)
    text = page.read_text(encoding="utf-8")
    for address in papers:
        text = text.replace(f'href="{address}"', "")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", text)


def test_styles_and_scripts_are_the_files(page):
    """Jinja would take `{{`, `{%` and `{#` in them for its own."""
    text = page.read_text(encoding="utf-8")
    files = [path for path in TEMPLATES.iterdir() if path.suffix in (".css", ".js")]
    assert len(files) == 4
    assert all(path.read_text(encoding="utf-8").strip() in text for path in files)


def test_what_the_inputs_say_never_becomes_markup(read):
    assert len(list(read.iter("script"))) == 3
    assert {image.get("src")[:5] for image in read.iter("img")} == {"data:"}
    assert not any(name.startswith("on") for element in read.iter() for name in element.attrib)
    assert all("<" not in (script.text or "") for script in read.iter("script") if script.get("type"))
    assert embedded(read, "chain-json")["runs"]["sam_adapter-s0"]["settings"]["note"] == "</script><!--"
    for name in ("papers", "data", "figures", "licences", "tables"):
        assert HOSTILE in text_of(section(read, name)), name
    assert section(read, "figures").find(".//img").get("alt") == f"{HOSTILE}: {HOSTILE}"


def test_a_name_that_nobody_gave_is_an_error():
    with pytest.raises(UndefinedError, match="plan"):
        environment().get_template("page.html").render()


def test_every_cell_has_its_chain(page, read):
    chain = embedded(read, "chain-json")
    cells = [int(button.get("data-cell")) for button in read.iter("button") if button.get("data-cell")]
    assert sorted(cells) == list(range(len(chain["cells"])))
    cell = next(c for c in chain["cells"] if (c["table"], c["row"], c["column"]) == PLACE)
    assert cell["published_text"] == "94.27"
    assert cell["runs"] == ["sam_adapter-s0", "sam_adapter-s1"]
    found = trace_cell(page.parent, *PLACE)
    assert [chain["runs"][run]["weights_sha256"] for run in cell["runs"]] == [
        item["run"]["weights_sha256"] for item in found.runs
    ]
    assert cell["rows"] == [[item["rows"]["file"], item["rows"]["rows"]] for item in found.runs]
    assert chain["files"][cell["rows"][0][0]] == found.runs[0]["rows"]["file_sha256"]
    assert chain["splits"][cell["split"]] == found.split
    assert chain["images"][cell["images"]]["list"] == [[i["image_id"], i["sha256"]] for i in found.images]
    assert chain["images"][cell["images"]]["sha256"] == images_sha256(found.images)


def test_a_cell_shows_images_with_value_and_mask(page, read):
    chain = embedded(read, "chain-json")
    cell = next(c for c in chain["cells"] if (c["table"], c["row"], c["column"]) == PLACE)
    # seed 0 has Dice 0.7, 0.8, 0.9, 0.8 on a, b, c, d
    assert [(name, value) for name, _, value, _ in cell["shown"]] == [("a", 0.7), ("d", 0.8), ("c", 0.9)]
    with zipfile.ZipFile(Layout(page.parent).run("segmentation", "sam_adapter-s0") / "test_masks.zip") as masks:
        kept = {name: hashlib.sha256(masks.read(f"isic2018_task1/{name}.png")).hexdigest() for name in "adc"}
    assert {name: mask for name, _, _, mask in cell["shown"]} == kept
    box = next(c for c in chain["cells"] if (c["row"], c["column"]) == ("SAM, oracle box", "dice"))
    assert {mask for *_, mask in box["shown"]} == {None}


def test_best_values_are_marked_and_missing_ones_said(read):
    rows = {cells[0].text: cells[1:3] for row in tbody(read, "Seg") if (cells := row.findall("td"))}
    assert [text_of(cell) for cell in rows["SAM-ViT (proposed)"]] == ["85.00 ± 7.07", "94.27"]
    assert rows["SAM-ViT (proposed)"][0].get("class") == "best"
    assert (text_of(rows[HOSTILE][0]), rows[HOSTILE][0].get("class")) == ("not run", "none")


def tbody(read, label):
    [table] = read.iterfind(f".//table[@aria-label='{label}']")
    return table.find("tbody")


def test_gallery_holds_every_case_with_outlines_and_answers(read):
    gallery = embedded(read, "gallery-json")
    assert len(gallery["cases"]) == 2 * len(IMAGES)
    case = next(c for c in gallery["cases"] if (c["d"], c["i"]) == ("isic2018_task1", "b"))
    assert case["m"]["sam_frozen"]["v"] == 0.6
    assert case["t"].startswith("M")
    # a disc of 20 pixels in an image whose longer side of 80 is shown at 64: from x = 16 to 48
    numbers = [int(part) for part in re.findall(r"[ML](\d+) ", case["t"])]
    assert (min(numbers), max(numbers)) == (17, 48)
    case = next(c for c in gallery["cases"] if (c["d"], c["i"]) == ("ham10000", "c"))
    assert case["m"]["vit_none"] == {"a": "nv", "v": 0.05}
    # the datasets share their images, so each is embedded once
    assert len(gallery["images"]) == len(IMAGES)


def test_a_small_budget_keeps_the_worst_and_the_best(page):
    plan = make_plan()
    small = plan.model_copy(update={"report": plan.report.model_copy(update={"gallery_megabytes": 1e-6})})
    kept = gallery_of(page.parent, small, Store.read(page.parent))
    assert [case["i"] for case in kept["cases"]] == ["a"]
    assert kept["left_out"] == 7
    assert "7 more did not fit" in environment().get_template("gallery.html").render(gallery=kept)
    assert [case["i"] for case in gallery_of(page.parent, plan, Store.read(page.parent))["cases"][:2]] == ["a", "d"]


def test_certificates_tell_how_far_the_way_of_confirmation_tells_the_class(read):
    rows = [[text_of(cell) for cell in row] for row in section(read, "certificates").iter("tr")]
    assert ["HAM10000", "test", "0.58", "follow_up", "1", "nv 100.0 %"] in rows
    assert ["HAM10000", "test", "0.58", "histo", "3", "mel 66.7 %, nv 33.3 %"] in rows


def test_licences_and_what_checkpoints_saw_are_listed(read):
    assert [row[:3] for row in rows_of(read, "Licences of images")][1] == ["isic2018_task1", "4", HOSTILE]
    assert "sam_adapter-s1" in [row[0] for row in rows_of(read, "Checkpoints")]
    assert "test images are seen by no run" in text_of(section(read, "licences"))


def test_papers_say_where_they_stand_what_was_read_and_where_they_contradict_themselves(read):
    said, plan = text_of(section(read, "papers")), hostile_plan()
    paper = plan.papers["sam_vit"]
    assert f"{paper.title}. {', '.join(paper.authors)}, 2025." in said
    assert f"doi:{DOI}. arXiv:{ARXIV}. Read: full text." in said
    assert all(item.text in said for item in plan.contradictions["sam_vit"])


def test_every_published_number_is_in_the_ledger_and_a_pair_of_dice_and_iou_in_one_row(read):
    rows = tbody(read, "Claims of SAM-ViT").findall("tr")
    published = published_numbers(hostile_plan())
    shown = [(row.get("data-table"), row[0].text.strip(), m) for row in rows for m in row.get("data-metric").split("|")]
    assert sorted(shown) == sorted((item.table, item.row, metric_name(item.metric)) for item in published)
    assert all(text_of(row[1]).startswith(row.get("data-verdict").split("|")[0]) for row in rows)
    [pair] = [
        row
        for row in rows
        if (row.get("data-table"), row[0].text.strip(), row.get("data-metric")) == (*PLACE[:2], "Dice|IoU")
    ]
    assert text_of(pair[4]) == "94.27 / 92.83"
    assert text_of(pair[1]).count("possible only if Dice 94.27 %") == 1


def test_the_summary_says_what_was_found(read):
    said, claims = text_of(section(read, "summary")), list(tbody(read, "Claims of SAM-ViT"))
    impossible = [row[0].text for row in claims if "arithmetically impossible" in row.get("data-verdict")]
    assert impossible
    assert all(name in said for name in impossible)
    assert said.startswith("Summary These numbers come from synthetic images")
    assert f"{len(published_numbers(hostile_plan()))} published numbers of 1 paper," in said
    # Dice over images 0.8, 0.8, 0.9, 0.9, mean over two seeds: 85 %
    [first, *_] = rows_of(read, "Proposed methods")
    assert first[:4] == ["SAM-ViT: SAM-ViT (proposed)", "ISIC 2018 Task 1", "Dice", "85"]
    assert first[5:] == ["94.27", "possible only if"]


def test_data_section_shows_classes_missing_values_sizes_joins_and_colours(read):
    assert rows_of(read, "Images per class") == [["ham10000", "1", "3"]]  # mel, nv in the order of the classes
    assert rows_of(read, "Images without a value") == [["ham10000", "1 (25 %)", "0"]]
    assert rows_of(read, "Images per dataset")[0][-1] == "600 x 450 (3), <script> (1)"
    assert rows_of(read, "Joins between datasets") == [["ham10000", "3"]]
    assert "Joined images form 2 groups (1 of 1 images)" in text_of(section(read, "data"))
    assert rows_of(read, "Colour distance") == [["ham10000 - ph2", "12.34", "0.68"]]
    assert rows_of(read, f"Split sizes, {HOME}")[0][:4] == ["ham10000", "0", "0", "4"]


def test_same_results_give_the_same_bytes(page, tmp_path):
    assert build(tmp_path).read_bytes() == page.read_bytes()


def test_a_missing_part_is_named(page, tmp_path):
    root = shutil.copytree(page.parent, tmp_path / "copy")
    Layout(root).ledger.unlink()
    with pytest.raises(RunError, match=r"ledger\.csv"):
        write_page(root, make_plan())


PROBE = """
<script>
const found = {errors: window.faults};
const rows = () =>
  [...document.querySelectorAll("#sam_vit_table_05 + .wide tbody tr")].map((row) => row.cells[0].textContent);
const heading = document.querySelectorAll("#sam_vit_table_05 + .wide thead button")[1];
found.before = rows();
heading.click();
found.ascending = rows();
found.sort = heading.closest("th").getAttribute("aria-sort");
heading.click();
found.descending = rows();
const button = [...document.querySelectorAll("button[data-cell]")].find((b) => b.textContent.startsWith("85.00"));
button.click();
found.open = document.getElementById("trace").open;
found.trace = document.getElementById("trace-body").textContent;
found.title = document.getElementById("trace-title").textContent;
const images = [...document.querySelectorAll("#trace-body details")].at(-1);
images.open = true;
document.getElementById("trace-close").click();
document.querySelector("[data-test]").click();
document.querySelector("#trace-body details").open = true;
found.test = document.getElementById("trace-body").textContent;
document.getElementById("trace-close").click();
found.unreachable = document.querySelectorAll("thead th:not(:has(button)), button[tabindex='-1']").length;
const cards = () => [...document.querySelectorAll("#gallery-grid figure")].map((card) => card.dataset.id);
const choose = (name, value) => {
  const select = document.querySelector(`[data-gallery="${name}"]`);
  select.value = value;
  select.dispatchEvent(new Event("input"));
};
found.gallery = cards();
choose("method", "sam_frozen");
choose("order", "best");
found.best = cards();
choose("dataset", "");
choose("method", "");
choose("class", "mel");
choose("order", "id");
found.melanoma = cards();
choose("class", "");
found.everything = document.getElementById("gallery-shown").textContent;
found.closed = !document.getElementById("trace").open;
document.querySelector("button[data-run]").click();
found.run = document.getElementById("trace-title").textContent;
document.getElementById("trace-close").click();
const shown = () => [...document.querySelectorAll("#claims tbody tr")].filter((row) => row.offsetParent !== null);
found.all = shown().length;
const select = document.querySelector('[data-filter="verdict"]');
select.value = "arithmetically impossible";
select.dispatchEvent(new Event("input"));
found.filtered = [...new Set(shown().flatMap((row) => row.dataset.verdict.split("|")))];
found.count = shown().length;
found.label = document.getElementById("shown").textContent;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
search.value = "frozen nowhere";
search.dispatchEvent(new Event("input"));
found.missed = document.querySelectorAll("#sam_vit_table_05 + .wide .missed").length;
document.body.insertAdjacentHTML("beforeend", '<pre id="probe"></pre>');
document.getElementById("probe").textContent = JSON.stringify(found);
</script></body>"""
WATCH = """<head><script>
window.faults = [];
window.addEventListener("error", (event) => window.faults.push(String(event.message)));
const loud = console.error;
console.error = (...words) => { window.faults.push(words.join(" ")); loud(...words); };
</script>"""


def test_the_policy_lets_the_pages_own_script_run_and_nothing_else(page):
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1].split("; ")
    assert len(scripts) == 1
    assert f"script-src '{source_hash(scripts[0])}'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium) to click through the page")
def test_page_in_a_browser(page, tmp_path):
    text = page.read_text(encoding="utf-8").replace("<head>", WATCH, 1).replace("</body>", PROBE, 1)
    own = [re.search(r"<script>(.*?)</script>", added, re.DOTALL)[1] for added in (WATCH, PROBE)]
    text = text.replace("script-src", f"script-src {' '.join(repr(source_hash(script)) for script in own)}", 1)
    copy = tmp_path / "page.html"
    copy.write_text(text, encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--window-size=500,900",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        copy.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    answers = re.findall(r'<pre id="probe">(\{.*?)</pre>', done.stdout, re.DOTALL)
    assert answers, done.stdout[-500:] + done.stderr[-2000:]
    found = json.loads(unescape(answers[-1]))
    assert found["errors"] == []
    # not run here stays last, whatever the direction
    assert found["before"][0] == HOSTILE
    assert found["ascending"] == ["SAM frozen", "SAM-ViT (proposed)", "SAM, oracle box", HOSTILE]
    assert found["descending"] == ["SAM, oracle box", "SAM-ViT (proposed)", "SAM frozen", HOSTILE]
    assert found["sort"] == "ascending"
    assert found["open"]
    assert found["closed"]
    assert found["title"] == ": ".join((PLACE[0], ", ".join(PLACE[1:])))
    told = trace_cell(page.parent, *PLACE)
    for item in told.runs:
        assert item["run"]["run_id"] in found["trace"]
        for key in ("weights_sha256", "settings_sha256"):
            assert item["run"][key] in found["trace"]
    assert told.split["sha256"] in found["trace"]
    assert "a: dice 0.7; image 0" in found["trace"]
    assert images_sha256(told.images) in found["trace"]
    assert 'lesion trace sam_vit_table_05 "SAM-ViT (proposed)" "dice"' in found["trace"]
    assert "sam_frozen-s0" in found["test"]
    assert found["unreachable"] == 0
    # the mean Dice of frozen model and adapter, worst first
    assert found["gallery"] == ["a", "b", "c", "d"]
    assert found["best"] == ["d", "c", "b", "a"]
    assert found["melanoma"] == ["b", "b", "c", "c"]
    assert found["everything"] == "8 of 8 shown"
    assert found["run"] == "vit_cross_attention-s0"
    assert found["all"] == len(
        {(p.table, p.row, p.metric in ("dice", "iou") or p.metric) for p in published_numbers(hostile_plan())}
    )
    assert found["filtered"] == ["arithmetically impossible"]
    assert 0 < found["count"] < found["all"]
    assert found["label"] == f"{found['count']} of {found['all']} shown"
    assert found["missed"] == 4  # no row holds both words
    assert found["overflow"] <= 0, "the page is wider than a narrow screen"


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "other", "cut"])
def test_a_broken_figure_is_no_hole_in_the_page(content, tmp_path):
    path = tmp_path / "roc.png"
    cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8))
    assert picture(path).startswith("data:image/png;base64,")
    path.write_bytes(path.read_bytes()[:-6] if content is None else content)
    with pytest.raises(FormatError, match=r"(?s)no whole PNG.*roc\.png"):
        picture(path)
