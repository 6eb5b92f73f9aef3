"""The page of ``lesion serve``: over HTTP, and in Chromium as a person uses it."""

from __future__ import annotations

import base64
import csv
import http.client
import io
import json
import os
import threading
import time
from contextlib import contextmanager
from urllib.parse import quote, unquote

import numpy as np
import pytest
import uvicorn
from browser import CHROMIUM, Browser
from PIL import Image
from segmentation_runs import SAM, make_run

from lesion_core.errors import RunError, SettingsError
from lesion_core.models.registry import build_segmenter
from lesion_core.models.trained import PACKAGED, LoadedSegmenter
from lesion_core.serve.app import BINARY, make_app
from lesion_core.serve.outlines import Correction, Outliner, image_id
from lesion_core.settings import CLASSES

HEIGHT, WIDTH = 96, 128


def disc(radius: int = 20) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = (x - 40) ** 2 + (y - 50) ** 2 < radius**2
    return np.where(inside[..., None], [90, 60, 50], [210, 170, 150]).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def classify(name, original, probability):
    """Classes that tell what they were given: the share of the map that is lesion."""
    share = round(float((probability >= 0.5).mean()), 6)
    values = [share, 1 - share, *[0.0] * (len(CLASSES) - 2)]
    columns = {f"calibrated_{label}": value for label, value in zip(CLASSES, values, strict=True)}
    return {"predicted": CLASSES[0], "temperature": 1.5, **columns}


@pytest.fixture(scope="module")
def outliner():
    def loaded(model):
        run = make_run(model=model)
        weights = PACKAGED / "sam_vit_t.safetensors" if model["kind"] == "sam" else None
        return LoadedSegmenter(build_segmenter(run.spec.model, weights, 0), run, np.full((3, 256), 1 / 256))

    return Outliner(loaded({"kind": "otsu"}), loaded(SAM), classify)


@contextmanager
def serving(app):
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", server_header=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def port(outliner):
    with serving(make_app(outliner, most_bytes=1 << 20)) as port:
        yield port


def ask(port, path, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def outline(port, content, name="a.png", correction=None):
    path = f"/outline?name={quote(name)}"
    path += "" if correction is None else f"&correction={quote(json.dumps(correction))}"
    status, _, body = ask(port, path, "POST", content, Content_Type=BINARY)
    return status, json.loads(body)


def mask_of(answer):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"])))) > 0


def overlap(mask, truth):
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_outline_row_mask_and_a_correction(port, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    truth = disc()[..., 0] < 150
    status, found = outline(port, png(disc()), "my folder/mole 1.png")
    assert (status, found["width"], found["height"]) == (200, WIDTH, HEIGHT)
    assert overlap(mask_of(found), truth) > 0.95
    assert found["row"]["image_id"] == "mole 1"
    assert found["row"]["area_pixels"] == mask_of(found).sum()
    assert sum(found["row"][f"calibrated_{name}"] for name in CLASSES) == pytest.approx(1)
    [line] = found["outline"]
    xs, ys = np.array(line).T
    assert np.abs([xs.min() - 21, xs.max() - 59, ys.min() - 31, ys.max() - 69]).max() <= 2
    assert Image.open(io.BytesIO(base64.b64decode(found["picture"]))).size == (WIDTH, HEIGHT)

    status, boxed = outline(port, png(disc()), correction={"clicks": [], "box": [19, 29, 61, 71]})
    assert (status, boxed["row"]["corrected"]) == (200, "yes")
    _, misled = outline(port, png(disc()), correction={"clicks": [[110, 20, 1]], "box": None})
    # the tiny SAM of the package follows prompts a little: 0.73 and 0.55
    assert overlap(mask_of(boxed), truth) > overlap(mask_of(misled), truth) + 0.1
    assert list(tmp_path.iterdir()) == []


def test_prompts_by_hand():
    prompts = Correction(((127, 0, 1), (0, 95, 0)), (100, 80, 20, 10)).prompts(96, 128, 64)
    assert prompts.points.tolist() == [[[63.0, 0.0], [0.0, 63.0]]]  # of 63.25 and -0.17, held within 0..63
    assert prompts.point_labels.tolist() == [[1, 0]]
    expected = [20.5 / 2 - 0.5, 10.5 * 2 / 3 - 0.5, 100.5 / 2 - 0.5, 80.5 * 2 / 3 - 0.5]
    assert prompts.boxes[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"clicks": [], "box": None},
        {"clicks": [[1, 2, 3]], "box": None},
        {"clicks": [[1, float("nan"), 1]], "box": None},
        {"clicks": [[1, 2]], "box": None},
        {"clicks": [], "box": [1, 2, 3]},
        {"clicks": [[1, 2, 1]] * 65, "box": None},
        {"clicks": [["1e999", 2, 1]], "box": None},
        {"clicks": 7, "box": None},
    ],
)
def test_what_is_no_correction(value):
    with pytest.raises(SettingsError, match="no correction"):
        Correction.read(value)


@pytest.mark.parametrize(
    ("content", "name", "correction", "status", "said"),
    [
        (b"no image", "a.png", None, 422, "does not decode"),
        (b"", "a.png", None, 422, "zero bytes"),
        (png(disc())[:200], "a.png", None, 422, "truncated or damaged"),
        (png(disc()), "=1+1.png", None, 422, "cannot stand in a table"),
        (png(disc()), "", None, 422, "cannot stand in a table"),
        (png(disc()), "a.png", [1], 422, "no correction"),
        (bytes((1 << 20) + 1), "a.png", None, 413, "over 1 MiB"),
    ],
)
def test_what_is_refused(port, content, name, correction, status, said):
    found, told = outline(port, content, name, correction)
    assert found == status
    assert said in told["problem"]


def test_other_sites_are_kept_out(port):
    status, headers, body = ask(port, "/")
    assert status == 200
    assert b"For research only" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    assert ask(port, "/about", Host="evil.example")[0] == 400
    assert ask(port, "/outline?name=a.png", "POST", b"x", Content_Type="text/plain")[0] == 415
    assert ask(port, "/../app.py")[0] == 404
    assert ask(port, "/outline")[0] in (404, 405)


def test_names_and_runs_that_do_not_fit(outliner):
    assert image_id("C:\\images\\a.b.jpg") == "a.b"
    with pytest.raises(RunError, match="no clicks or boxes"):
        Outliner(outliner.segmenter, outliner.segmenter)
    with pytest.raises(SettingsError, match="No outline can be corrected"):
        Outliner(outliner.segmenter).outline("a.png", png(disc()), Correction(((1, 1, 1),)))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: chromium)")
def test_page_in_a_browser(port, tmp_path):
    (tmp_path / "mole.png").write_bytes(png(disc()))
    (tmp_path / "text.png").write_bytes(b"no image")
    with Browser(tmp_path / "profile") as tab:
        tab.call("Page.navigate", url=f"http://127.0.0.1:{port}/")
        tab.wait("document.querySelector('#about')?.textContent && !document.querySelector('#tools').hidden")
        tab.choose("#files", tmp_path / "mole.png", tmp_path / "text.png")
        tab.wait("document.querySelectorAll('article .said')[0]?.textContent")
        tab.wait("document.querySelectorAll('article .problem')[1]?.textContent.includes('does not decode')")
        assert tab.value("document.querySelectorAll('article tbody tr').length") == len(CLASSES)
        assert "calibrated probability" in tab.value("document.querySelector('.kind').textContent")
        before = tab.value("document.querySelector('.line').getAttribute('d')")
        left, top, width = tab.value(
            "{ const r = document.querySelector('svg').getBoundingClientRect(); [r.left, r.top, r.width] }"
        )
        scale = width / WIDTH
        corners = [(left + x * scale, top + y * scale) for x, y in ((19, 29), (40, 50), (61, 71))]
        tab.mouse(*corners)
        tab.wait("document.querySelector('.said')?.textContent.includes('corrected')")
        tab.value("document.querySelector('input[value=\"0\"]').click()")
        tab.mouse((left + 110 * scale, top + 20 * scale))
        tab.wait("document.querySelectorAll('circle.skin').length === 1 && !document.querySelector('.busy')")
        assert tab.value("document.querySelector('.line').getAttribute('d')") != before
        sent = tab.value("performance.getEntriesByType('resource').map((one) => one.name).at(-1)")
        drawn = json.loads(unquote(sent.split("correction=")[1].replace("+", " ")))
        assert np.abs(np.array(drawn["box"]) - [18.5, 28.5, 60.5, 70.5]).max() < 0.6
        assert drawn["clicks"][0][2] == 0
        rows = list(csv.DictReader(io.StringIO(tab.value("csv()"))))
        assert [(row["image_id"], row["corrected"]) for row in rows] == [("mole", "yes")]
        mask = tab.value("document.querySelector('a.mask').href").split(",")[1]
        assert mask_of({"mask": mask}).sum() == int(rows[0]["area_pixels"])
        if "LESION_PICTURES" in os.environ:
            tab.picture(tmp_path.parent / "serve.png")
        tab.value("document.querySelector('.undo').click()")
        tab.wait(f"document.querySelector('.line')?.getAttribute('d') === {json.dumps(before)}")
        assert tab.value("document.querySelector('.mask').download") == "mole.png"
