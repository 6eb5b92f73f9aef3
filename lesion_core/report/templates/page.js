"use strict";
// Sorting: a click on a heading sorts its table; numbers by value, text by locale, empty cells last either way.
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

// Filters of the ledger.
const filters = [...document.querySelectorAll("[data-filter]")];
function applyFilters() {
  const rows = [...document.querySelectorAll("#claims tbody tr")];
  const has = (row, { value, dataset }) => value === "" || row.dataset[dataset.filter].split("|").includes(value);
  for (const row of rows) row.hidden = !filters.every((filter) => has(row, filter));
  for (const part of document.querySelectorAll("#claims > div")) part.hidden = !part.querySelector("tbody tr:not([hidden])");
  document.getElementById("shown").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} shown`;
}
for (const filter of filters) filter.addEventListener("input", applyFilters);
applyFilters();

// Search: rows of all tables that hold every word; tables without one, and folded ones with one, follow.
const search = document.getElementById("search");
search.addEventListener("input", () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const row of document.querySelectorAll("main tbody tr")) {
    const text = row.textContent.toLowerCase();
    row.classList.toggle("missed", !words.every((word) => text.includes(word)));
  }
  for (const box of document.querySelectorAll(".wide")) {
    const found = box.querySelector("tbody tr:not(.missed)") !== null;
    box.classList.toggle("missed", !found);
    const folded = box.closest("details");
    if (folded) folded.open = words.length > 0 && found;
  }
});
