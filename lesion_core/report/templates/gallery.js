
// The gallery: images are decoded when they are shown, a page at a time.
const gallery = JSON.parse(document.getElementById("gallery-json").textContent);
const grid = document.getElementById("gallery-grid");
if (grid) {
  const PAGE = 24;
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"];
  const DASHES = ["none", "5 3", "1.5 2.5"];  // more methods than colours: the next round is dashed, then dotted
  const BORDERS = ["solid", "dashed", "dotted"];
  const methods = Object.keys(gallery.methods);
  const ink = (name) => COLOURS[methods.indexOf(name) % COLOURS.length];
  const round = (name) => Math.floor(methods.indexOf(name) / COLOURS.length) % DASHES.length;
  const selects = Object.fromEntries([...document.querySelectorAll("[data-gallery]")].map((select) => [select.dataset.gallery, select]));
  const more = document.getElementById("gallery-more");
  let cases = [];
  let shown = 0;

  // paths hold digits and the letters M, L and Z alone
  const outlined = (path, colour, width, dash = "none") =>
    `<path d="${path}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-dasharray="${dash}"/>`;
  function answer(name, given, own) {
    const line = document.createElement("li");
    const label = document.createElement("span");
    label.textContent = gallery.methods[name];
    if (given.p !== undefined) label.style.borderLeft = `4px ${BORDERS[round(name)]} ${ink(name)}`;
    const value = document.createElement("b");
    value.textContent = given.a === undefined ? given.v.toFixed(3) : `${given.a} (${given.v.toFixed(2)})`;
    if (given.a !== undefined && given.a !== own.c) value.className = "wrong";
    line.append(label, value);
    return line;
  }
  function card(own) {
    const figure = document.createElement("figure");
    figure.dataset.id = own.i;
    const frame = document.createElement("div");
    const image = new Image();
    const wanted = selects.method.value;
    const answers = Object.entries(own.m).filter(([name]) => wanted === "" || name === wanted);
    image.alt = `${own.i} of ${gallery.datasets[own.d]}${own.c ? `, ${own.c}` : ""}`;
    image.addEventListener("load", () => {
      const paths = own.t ? [outlined(own.t, "#000", 3), outlined(own.t, "#fff", 1.6)] : [];
      for (const [name, given] of answers) {
        if (given.p) paths.push(outlined(given.p, ink(name), 1.6, DASHES[round(name)]));
      }
      const box = `0 0 ${image.naturalWidth} ${image.naturalHeight}`;
      frame.insertAdjacentHTML("beforeend", `<svg viewBox="${box}">${paths.join("")}</svg>`);
    });
    image.src = `data:image/jpeg;base64,${gallery.images[own.s]}`;
    frame.append(image);
    const caption = document.createElement("figcaption");
    const title = document.createElement("span");
    title.textContent = `${own.i}${own.c ? `, ${own.c}` : ""}`;
    const list = document.createElement("ul");
    list.append(...answers.map(([name, given]) => answer(name, given, own)));
    caption.append(title, list);
    figure.append(frame, caption);
    return figure;
  }
  function score(own) {
    const wanted = selects.method.value;
    const values = Object.entries(own.m).filter(([name]) => wanted === "" || name === wanted).map(([, given]) => given.v);
    return values.reduce((sum, value) => sum + value, 0) / values.length;
  }
  function showMore() {
    grid.append(...cases.slice(shown, shown + PAGE).map(card));
    shown = Math.min(cases.length, shown + PAGE);
    more.hidden = shown >= cases.length;
    document.getElementById("gallery-shown").textContent = `${shown} of ${cases.length} shown`;
  }
  function refresh() {
    cases = gallery.cases.filter((own) =>
      (selects.dataset.value === "" || own.d === selects.dataset.value)
      && (selects.class.value === "" || own.c === selects.class.value)
      && (selects.method.value === "" || selects.method.value in own.m));
    const byId = (a, b) => a.i.localeCompare(b.i);
    const sign = selects.order.value === "best" ? -1 : 1;
    cases.sort(selects.order.value === "id" ? byId : (a, b) => sign * (score(a) - score(b)) || byId(a, b));
    grid.replaceChildren();
    shown = 0;
    showMore();
  }
  for (const select of Object.values(selects)) select.addEventListener("input", refresh);
  more.addEventListener("click", showMore);
  // one dataset at first: Dice and probabilities do not sort together
  selects.dataset.selectedIndex = Math.min(1, selects.dataset.options.length - 1);
  refresh();
}
