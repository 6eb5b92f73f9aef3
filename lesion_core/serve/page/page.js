"use strict";
const byId = (id) => document.getElementById(id);
const rows = new Map(); // article -> row of predictions.csv
let about = { corrector: null, classes: [] };

fetch("about").then((answer) => answer.json()).then((found) => {
  about = found;
  byId("about").textContent = `Outlines by ${about.run}` + (about.corrector ? `, corrected by ${about.corrector}` : "");
  byId("tools").hidden = !about.corrector;
});

class Card {
  constructor(file) {
    this.file = file;
    this.clicks = [];
    this.box = null;
    this.node = byId("card").content.firstElementChild.cloneNode(true);
    this.part("h2").textContent = file.name;
    this.part("table").hidden = this.part("a").hidden = true;
    const svg = this.part("svg");
    svg.classList.toggle("corrects", Boolean(about.corrector));
    svg.addEventListener("pointerdown", (event) => this.press(event));
    svg.addEventListener("pointermove", (event) => this.drag(event));
    svg.addEventListener("pointerup", (event) => this.release(event));
    svg.addEventListener("pointercancel", () => { this.start = null; this.draw(); });
    this.part(".undo").addEventListener("click", () => { this.clicks = []; this.box = null; this.ask(); });
    byId("images").append(this.node);
  }
  part(selector) { return this.node.querySelector(selector); }
  place(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.part("svg").getScreenCTM().inverse());
    return [at.x - 0.5, at.y - 0.5];
  }
  press(event) {
    if (!about.corrector || !this.ready || event.button !== 0) return;
    this.part("svg").setPointerCapture(event.pointerId);
    this.start = { at: this.place(event), x: event.clientX, y: event.clientY };
  }
  dragged(event) { return Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) > 6; }
  drag(event) {
    if (this.start && this.dragged(event)) this.draw([...this.start.at, ...this.place(event)]);
  }
  release(event) {
    if (!this.start) return;
    if (this.dragged(event)) this.box = [...this.start.at, ...this.place(event)];
    else this.clicks.push([...this.start.at, Number(document.querySelector("input[name=click]:checked").value)]);
    this.start = null;
    this.ask();
  }
  async ask() {
    const corrected = this.clicks.length > 0 || this.box !== null;
    const query = new URLSearchParams({ name: this.file.name });
    if (corrected) query.set("correction", JSON.stringify({ clicks: this.clicks, box: this.box }));
    this.ready = false;
    this.node.classList.add("busy");
    this.part(".undo").hidden = !corrected;
    try {
      const headers = { "Content-Type": "application/octet-stream" };
      const answer = await fetch(`outline?${query}`, { method: "POST", headers, body: this.file });
      const found = await answer.json().catch(() => ({ problem: "the server is busy; try again" }));
      if (!answer.ok) throw new Error(found.problem);
      this.show(found);
      this.part(".problem").textContent = "";
    } catch (error) {
      this.part(".problem").textContent = error.message;
    }
    this.ready = Boolean(this.found);
    this.node.classList.remove("busy");
    this.draw();
  }
  show(found) {
    this.found = found;
    const { row, width, height } = found;
    rows.set(this.node, row);
    byId("csv").disabled = false;
    this.part("svg").setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.part("svg").setAttribute("aria-label", `Outline of the lesion in ${this.file.name}`);
    this.part("image").setAttribute("href", `data:image/jpeg;base64,${found.picture}`);
    const lines = found.outline.map((line) => `M${line.map(([x, y]) => `${x + 0.5} ${y + 0.5}`).join("L")}Z`).join("");
    for (const path of this.node.querySelectorAll("path")) path.setAttribute("d", lines);
    const strange = row.unlikeness > 1 ? "; unlike the images of training: do not rely on it" : "";
    this.part(".said").textContent = `${width} x ${height} pixels, lesion ${(100 * row.area).toFixed(1)} %, confidence ` +
      `${row.confidence.toFixed(2)}${row.corrected ? ", corrected" : ""}${strange}${row.conversions ? `; ${row.conversions}` : ""}`;
    const link = this.part("a");
    link.hidden = false;
    link.href = `data:image/png;base64,${found.mask}`;
    link.download = `${row.image_id}.png`;
    this.tabulate(row);
  }
  tabulate(row) {
    if (!about.classes.length) return;
    const kind = row.temperature === "" ? "p" : "calibrated";
    this.part("table").hidden = false;
    this.part(".kind").textContent = kind === "p" ? "probability, not calibrated" : "calibrated probability";
    const ordered = about.classes.map((name) => [name, row[`${kind}_${name}`]]).sort((a, b) => b[1] - a[1]);
    this.part("tbody").replaceChildren(...ordered.map(([name, value], number) => {
      const line = document.createElement("tr");
      line.classList.toggle("first", number === 0);
      for (const text of [name, value.toFixed(3)]) line.insertCell().textContent = text;
      return line;
    }));
  }
  draw(box = this.box) {
    const rectangle = this.part("rect");
    rectangle.toggleAttribute("hidden", !box);
    if (box) {
      const [x0, y0, x1, y1] = box;
      const sides = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
      for (const [name, value] of Object.entries(sides)) rectangle.setAttribute(name, value);
    }
    const radius = this.found ? this.found.width / 80 : 1;
    this.part("g").replaceChildren(...this.clicks.map(([x, y, label]) => {
      const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
      dot.classList.add(label ? "lesion" : "skin");
      for (const [name, value] of Object.entries({ cx: x + 0.5, cy: y + 0.5, r: radius })) dot.setAttribute(name, value);
      return dot;
    }));
  }
}

let queue = Promise.resolve(); // one image after the other
function take(files) {
  for (const card of [...files].map((file) => new Card(file))) queue = queue.then(() => card.ask());
}
function csv() {
  const found = [...rows.values()];
  const columns = [...new Set(found.flatMap(Object.keys))];
  const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const lines = [columns, ...found.map((row) => columns.map((name) => row[name]))];
  return lines.map((line) => line.map(cell).join(",")).join("\n") + "\n";
}

byId("files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files);
  });
}
byId("csv").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(csv())}`;
  link.download = "predictions.csv";
  link.click();
});
