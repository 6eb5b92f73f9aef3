
// Provenance: a click on a cell (or Enter) shows its chain, as `lesion trace` prints it; a click on a run shows the run.
const chain = JSON.parse(document.getElementById("chain-json").textContent);
const dialog = document.getElementById("trace");
const body = document.getElementById("trace-body");

function element(kind, text, parent) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}
function facts(pairs, parent) {
  const list = element("dl", undefined, parent);
  for (const [name, value] of pairs) {
    if (value === undefined || value === null || value === "") continue;
    element("dt", name, list);
    element("dd", String(value), list);
  }
}
function folded(title, fill, parent) {
  const box = element("details", undefined, parent);
  element("summary", title, box);
  // a long list is laid out when it is opened, not before
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) fill(box); });
}
function showRun(id, rows, parent) {
  const run = chain.runs[id];
  element("h4", id, parent);
  if (!run) return void element("p", "This run's folder is not at hand.", parent);
  const code = run.code ?? {};
  facts([
    ["score rows", rows && `${rows[1]} of ${rows[0]}`],
    ["file SHA-256", rows && chain.files[rows[0]]],
    ["task, seed, device", `${run.task}, ${run.seed}, ${run.device}`],
    ["settings SHA-256", run.settings_sha256],
    ["weights SHA-256", run.weights_sha256],
    ["code", `${code.hash ?? "not recorded"}, commit ${code.commit ?? "not recorded"}${code.dirty ? " with local changes" : ""}`],
    ...Object.entries(run.inputs).map(([name, link]) => [name, `${link.sha256} (${link.state})`]),
  ], parent);
  folded("Settings", (box) => element("pre", JSON.stringify(run.settings, null, 2), box), parent);
  folded("What training noted", (box) => element("pre", JSON.stringify(run.extra, null, 2), box), parent);
}
function showOrigin(item) {
  item.runs.forEach((id, place) => showRun(id, item.rows[place], body));
  const split = chain.splits[item.split];
  const images = chain.images[item.images];
  if (split && images) {
    element("h4", `Images of ${item.dataset}`, body);
    facts([
      ["split file", `${split.file}, ${split.sha256} (${split.state})`],
      ["images", `${images.list.length}, together ${images.sha256}`],
    ], body);
    folded("Every image with its SHA-256", (box) => {
      element("pre", images.list.map(([id, digest]) => `${id} ${digest}`).join("\n"), box);
    }, body);
  }
}
function showImages(cell) {
  element("h4", `Lowest, middle and highest image of ${cell.runs[0]}`, body);
  const box = element("div", undefined, body);
  box.className = "thumbs";
  for (const [id, digest, value, mask] of cell.shown) {
    const figure = element("figure", undefined, box);
    const pixels = gallery.images[digest];
    if (pixels) {
      const image = element("img", undefined, figure);
      image.alt = id;
      image.src = `data:image/jpeg;base64,${pixels}`;
    }
    element("figcaption", `${id}: ${cell.metric} ${value}; image ${digest}; mask ${mask ?? "not kept under this prompt"}`, figure);
  }
}
function open(title) {
  document.getElementById("trace-title").textContent = title;
  dialog.showModal();
  body.scrollTop = 0;
}
function showCell(number) {
  const cell = chain.cells[number];
  body.replaceChildren();
  const how = cell.kind === "segmentation"
    ? `, prompt ${cell.prompt}${cell.minus ? ` minus ${cell.minus}` : ""}, ${cell.resolution} size, averaged by ${cell.averaging}` : "";
  facts([
    ["printed", `${cell.text} (${cell.unit})`],
    ["value", cell.value],
    ["SD over seeds", cell.sd],
    ["published", cell.published_text],
    ["measures", `${cell.metric}, ${cell.dataset}, ${cell.kind}${how}${cell.explainer ? `, ${cell.explainer}` : ""}`],
    ["to recompute it", `lesion trace ${cell.table} "${cell.row}" "${cell.column}" --root results/${document.body.dataset.profile}`],
  ], body);
  if (cell.shown?.length) showImages(cell);
  showOrigin(cell);
  open(`${cell.table}: ${cell.row}, ${cell.column}`);
}
function showTest(number, key) {
  const test = chain.tests[number];
  body.replaceChildren();
  const row = `${test.other}, ${test.dataset}, ${test.level}`;
  const { runs, rows, images, table, notes, ...numbers } = test;
  facts([
    [key, test[key]],
    ["compares", `${test.proposed} with ${test.other}`],
    ["notes", notes],
    ["to recompute it", `lesion trace ${table} "${row}" ${key} --root results/${document.body.dataset.profile}`],
  ], body);
  folded("All numbers of this test", (box) => facts(Object.entries(numbers), box), body);
  showOrigin(test);
  open(`${table}: ${row}, ${key}`);
}
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { cell, test, key, run } = button.dataset;
  if (cell !== undefined) showCell(Number(cell));
  else if (test !== undefined) showTest(Number(test), key);
  else if (run !== undefined) {
    body.replaceChildren();
    showRun(run, undefined, body);
    open(run);
  }
});
document.getElementById("trace-close").addEventListener("click", () => dialog.close());
