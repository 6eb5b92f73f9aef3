"""The page: complete, well-formed, offline, and alive in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import pytest
from report_store import make_plan, make_store, make_surroundings

from lesion_core.errors import RunError
from lesion_core.files import write_json
from lesion_core.paths import Layout
from lesion_core.report.ledger import write_ledger
from lesion_core.report.page import SECTIONS, write_page
from lesion_core.report.published import load
from lesion_core.report.statistics import write_statistics
from lesion_core.report.tables import write_tables

VOID = {"meta", "link", "br", "img", "input", "hr", "col"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


def build(root):
    plan = make_plan()
    make_store(root)
    make_surroundings(root, plan)
    write_tables(root, plan)
    write_statistics(root, plan)
    write_ledger(root, plan)
    figures = [{"name": "roc", "title": "ROC", "caption": 'a "quoted" <caption>'}]
    write_json(root / "figures" / "figures.json", figures)
    (root / "figures" / "roc.png").write_bytes(PIXEL)
    write_page(root, plan)
    return Layout(root).report


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
            self.cells.append(json.loads(attributes["data-cell"]))
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


def test_provenance_parses_and_names_runs(read):
    runs = json.loads(read.scripts["runs-json"])
    assert runs["sam_adapter-s0"]["settings"]["note"] == "</script><!--"
    cell = next(c for c in read.cells if (c["row"], c["column"]) == ("SAM-ViT (proposed)", "dice"))
    assert set(cell["run_ids"].split()) <= set(runs)
    assert cell["published_text"] == "94.27"


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
found.trace = JSON.parse(document.getElementById("trace-text").textContent);
document.getElementById("trace-close").click();
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
    assert [run["run_id"] for run in found["trace"]["runs"]] == ["sam_adapter-s0", "sam_adapter-s1"]
    assert found["run"] == "vit_cross_attention-s0"
    assert found["all"] == len(load())
    assert found["filtered"] == ["arithmetically impossible"]
    assert 0 < found["count"] < found["all"]
    assert found["label"] == f"{found['count']} of {found['all']} shown"
    assert found["overflow"] <= 0, "the page is wider than a narrow screen"
