"use strict";
// Sorting: a click on a heading sorts its table; numbers by value, text by locale, empty cells last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th");
    const table = button.closest("table");
    const column = heading.cellIndex;
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const [m, n] = [Number(x), Number(y)];
      const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y) : m - n;
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}

// Provenance: a click on a cell shows the runs that it came from.
const dialog = document.getElementById("trace");
const runs = JSON.parse(document.getElementById("runs").textContent);
for (const button of document.querySelectorAll("button[data-cell]")) {
  button.addEventListener("click", () => {
    const cell = JSON.parse(button.dataset.cell);
    document.getElementById("trace-title").textContent = `${cell.table}: ${cell.row}, ${cell.column}`;
    const details = { ...cell, runs: (cell.run_ids ?? "").split(" ").filter(Boolean).map((id) => runs[id] ?? { run_id: id }) };
    delete details.run_ids;
    document.getElementById("trace-text").textContent = JSON.stringify(details, null, 2);
    dialog.showModal();
  });
}
document.getElementById("trace-close").addEventListener("click", () => dialog.close());

// Filters of the ledger.
const filters = [...document.querySelectorAll("[data-filter]")];
function applyFilters() {
  for (const row of document.querySelectorAll("#ledger tbody tr")) {
    row.hidden = !filters.every((filter) => filter.value === "" || row.dataset[filter.dataset.filter] === filter.value);
  }
}
for (const filter of filters) filter.addEventListener("input", applyFilters);
