"""The page: complete, well-formed, offline, and alive in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from html import unescape
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from report_store import DICE, IMAGES, make_plan, make_results

from lesion_core.errors import FormatError, RunError
from lesion_core.files import write_json
from lesion_core.papers.published import load
from lesion_core.paths import Layout
from lesion_core.report.gallery import gallery_data, gallery_section
from lesion_core.report.html import picture
from lesion_core.report.ledger import write_ledger
from lesion_core.report.page import SECTIONS, write_page
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables
from lesion_core.report.trace import images_sha256, trace_cell
from lesion_core.report.values import Store

PLACE = ("table_05", "SAM-ViT (proposed)", "dice")
VOID = {"meta", "link", "br", "img", "input", "hr", "col"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


def build(root):
    plan = make_plan()
    make_results(root)
    make_photographs(root)
    write_tables(root, plan)
    write_statistics(root, plan)
    write_ledger(root, plan)
    figures = [{"name": "roc", "title": "ROC", "caption": 'a "quoted" <caption>'}]
    write_json(root / "figures" / "figures.json", figures)
    (root / "figures" / "roc.png").write_bytes(PIXEL)
    write_page(root, plan)
    return Layout(root).report


def make_photographs(root):
    """A photograph of every image, and what scoring stores: predicted and true masks."""
    layout = Layout(root)
    for dataset in ("isic2018_task1", "ham10000"):
        layout.data(dataset).mkdir(parents=True)
        for number, image in enumerate(IMAGES):
            pixels = np.full((60, 80, 3), 40 * number + 60, np.uint8)
            cv2.imwrite(str(layout.data(dataset) / f"{image}.png"), pixels)
    for run in DICE:
        with zipfile.ZipFile(layout.run("segmentation", run) / "test_masks.zip", "w") as masks:
            for number, image in enumerate(IMAGES):
                for name, radius in (("", 15 + number), ("truth/", 20)):
                    masks.writestr(f"{name}isic2018_task1/{image}.png", cv2.imencode(".png", disc(radius))[1].tobytes())


def disc(radius):
    y, x = np.mgrid[:60, :80]
    return ((x - 40) ** 2 + (y - 30) ** 2 < radius**2).astype(np.uint8) * 255


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build(tmp_path_factory.mktemp("page"))


class Reader(HTMLParser):
    """Collects ids, addresses, provenance and script contents; every element must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.addresses, self.cells, self.scripts, self.tags = [], [], [], [], {}, []
        self.images = []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append(tag)
        self.ids.extend([attributes["id"]] if "id" in attributes else [])
        self.addresses.extend(attributes[key] for key in ("src", "href", "action", "srcset") if key in attributes)
        if "data-cell" in attributes:
            self.cells.append(int(attributes["data-cell"]))
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append((tag, attributes.get("id")))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts[self.open[-1][1]] = self.scripts.get(self.open[-1][1], "") + data


@pytest.fixture(scope="module")
def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    reader.close()
    return reader


def test_page_is_well_formed(read):
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert all(image.get("alt") for image in read.images)


def test_page_has_every_section_and_table(read):
    assert set(SECTIONS) <= set(read.ids)
    assert {*make_plan().tables, "table_15", "table_16"} <= set(read.ids)


def test_page_opens_offline(page, read):
    assert all(address.startswith(("data:", "#")) for address in read.addresses)
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|fetch\(|XMLHttpRequest", text)


def chain_of(read):
    return json.loads(read.scripts["chain-json"])


def test_every_cell_has_its_chain(page, read):
    chain = chain_of(read)
    assert chain["runs"]["sam_adapter-s0"]["settings"]["note"] == "</script><!--"
    assert sorted(read.cells) == list(range(len(chain["cells"])))
    cell = next(c for c in chain["cells"] if (c["table"], c["row"], c["column"]) == PLACE)
    assert cell["published_text"] == "94.27"
    assert cell["runs"] == ["sam_adapter-s0", "sam_adapter-s1"]
    found = trace_cell(page.parent, *PLACE)
    assert [chain["runs"][run]["weights_sha256"] for run in cell["runs"]] == [
        item["run"]["weights_sha256"] for item in found.runs
    ]
    assert cell["rows"] == [[item["rows"]["file"], item["rows"]["rows"]] for item in found.runs]
    assert chain["files"][cell["rows"][0][0]] == found.runs[0]["rows"]["file_sha256"]
    assert chain["splits"][cell["dataset"]] == found.split
    assert chain["images"][cell["images"]]["list"] == [[i["image_id"], i["sha256"]] for i in found.images]
    assert chain["images"][cell["images"]]["sha256"] == images_sha256(found.images)


def test_gallery_holds_every_case_with_outlines_and_answers(read):
    gallery = json.loads(read.scripts["gallery-json"])
    assert len(gallery["cases"]) == 2 * len(IMAGES)
    case = next(c for c in gallery["cases"] if (c["d"], c["i"]) == ("isic2018_task1", "b"))
    assert case["m"]["sam_frozen"]["v"] == 0.6
    assert case["t"].startswith("M")
    # a disc of 20 pixels in a photograph whose longer side of 80 is shown at 64: from x = 16 to 48
    numbers = [int(part) for part in re.findall(r"[ML](\d+) ", case["t"])]
    assert (min(numbers), max(numbers)) == (17, 48)
    case = next(c for c in gallery["cases"] if (c["d"], c["i"]) == ("ham10000", "c"))
    assert case["m"]["vit_none"] == {"a": "nv", "v": 0.05}
    # the datasets share their photographs, so each is embedded once
    assert len(gallery["photographs"]) == len(IMAGES)


def test_a_small_budget_keeps_the_worst_and_the_best(page):
    plan = make_plan()
    small = plan.model_copy(update={"report": plan.report.model_copy(update={"gallery_megabytes": 1e-6})})
    kept = gallery_data(page.parent, small, Store.read(page.parent))
    assert [case["i"] for case in kept["cases"]] == ["a"]
    assert kept["left_out"] == 7
    assert "7 more did not fit" in gallery_section(kept)
    assert [case["i"] for case in gallery_data(page.parent, plan, Store.read(page.parent))["cases"][:2]] == ["a", "d"]


def test_licences_and_what_checkpoints_saw_are_listed(page):
    text = page.read_text(encoding="utf-8")
    assert "CC0-1.0" in text
    assert text.count("test images are seen by no run") == 1
    assert "<code>sam_adapter-s1</code>" in text


def test_every_published_number_is_in_the_ledger(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<tr data-paper=") == len(load())


def test_data_section_shows_classes_missing_values_sizes_and_problems(page):
    text = page.read_text(encoding="utf-8")
    assert "<td>ham10000</td><td>1</td><td>3</td>" in text  # mel, nv in the order of the classes
    assert "1 (25 %)" in text
    assert "600 x 450 (3), &lt;script&gt; (1)" in text
    assert "a &lt;b&gt;bold&lt;/b&gt; claim" in text


def test_same_results_give_the_same_bytes(page, tmp_path):
    assert build(tmp_path).read_bytes() == page.read_bytes()


def test_a_missing_part_is_named(tmp_path):
    build(tmp_path)
    (tmp_path / "ledger" / "ledger.csv").unlink()
    with pytest.raises(RunError, match=r"ledger\.csv"):
        write_page(tmp_path, make_plan())


PROBE = """
<script>
const found = {errors: window.faults};
const rows = () => [...document.querySelectorAll("#table_05 + .wide tbody tr")].map((row) => row.cells[0].textContent);
const heading = document.querySelectorAll("#table_05 + .wide thead button")[1];
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
const photographs = [...document.querySelectorAll("#trace-body details")].at(-1);
photographs.open = true;
document.getElementById("trace-close").click();
document.querySelector('[data-test][data-key="p_t"]').click();
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
found.filtered = [...new Set(shown().map((row) => row.dataset.verdict))];
found.count = shown().length;
found.label = document.getElementById("shown").textContent;
found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
document.body.insertAdjacentHTML("beforeend", '<pre id="probe"></pre>');
document.getElementById("probe").textContent = JSON.stringify(found);
</script></body>"""
WATCH = """<head><script>
window.faults = [];
window.addEventListener("error", (event) => window.faults.push(String(event.message)));
const loud = console.error;
console.error = (...words) => { window.faults.push(words.join(" ")); loud(...words); };
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium) to click through the page")
def test_page_in_a_browser(page, tmp_path):
    text = page.read_text(encoding="utf-8").replace("<head>", WATCH, 1).replace("</body>", PROBE, 1)
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
    assert found["before"][0] == "U-Net"
    assert found["ascending"] == ["SAM frozen", "SAM-ViT (proposed)", "SAM, oracle box", "U-Net"]
    assert found["descending"] == ["SAM, oracle box", "SAM-ViT (proposed)", "SAM frozen", "U-Net"]
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
    assert images_sha256(told.images) in found["trace"]
    assert 'lesion trace table_05 "SAM-ViT (proposed)" "dice"' in found["trace"]
    assert "sam_frozen-s0" in found["test"]
    assert found["unreachable"] == 0
    # the mean Dice of frozen model and adapter, worst first
    assert found["gallery"] == ["a", "b", "c", "d"]
    assert found["best"] == ["d", "c", "b", "a"]
    assert found["melanoma"] == ["b", "b", "c", "c"]
    assert found["everything"] == "8 of 8 shown"
    assert found["run"] == "vit_cross_attention-s0"
    assert found["all"] == len(load())
    assert found["filtered"] == ["arithmetically impossible"]
    assert 0 < found["count"] < found["all"]
    assert found["label"] == f"{found['count']} of {found['all']} shown"
    assert found["overflow"] <= 0, "the page is wider than a narrow screen"


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "other", "cut"])
def test_a_broken_figure_is_no_hole_in_the_page(content, tmp_path):
    path = tmp_path / "roc.png"
    cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8))
    assert picture(path).startswith("data:image/png;base64,")
    path.write_bytes(path.read_bytes()[:-6] if content is None else content)
    with pytest.raises(FormatError, match=r"(?s)no whole PNG.*roc\.png"):
        picture(path)
