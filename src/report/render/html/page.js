// Zooms into the call tree, and sorts tables.
// The page is complete without it.
"use strict";

for (const icicle of document.querySelectorAll(".icicle")) {
  const cells = [...icicle.children].map((element) => ({
    element,
    row: Number(element.dataset.row),
    left: Number(element.dataset.left),
    width: Number(element.dataset.width),
  }));
  const zoom = (chosen) => {
    const end = chosen.left + chosen.width;
    for (const cell of cells) {
      const left = (100 * (cell.left - chosen.left)) / chosen.width;
      const right = left + (100 * cell.width) / chosen.width;
      const above = cell.row < chosen.row && cell.left <= chosen.left + 0.001 && cell.left + cell.width >= end - 0.001;
      const begin = above ? 0 : Math.max(left, 0);
      cell.element.style.left = begin + "%";
      cell.element.style.width = (above ? 100 : Math.max(Math.min(right, 100) - begin, 0)) + "%";
      cell.element.classList.toggle("away", !above && (right <= 0.001 || left >= 99.999));
      cell.element.classList.toggle("above", above && cell.row > 0);
    }
  };
  for (const cell of cells) cell.element.addEventListener("click", () => zoom(cell));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.classList.contains("picture")) return;
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[column].textContent;
        const number = parseFloat(text);
        return head.classList.contains("name") ? text : Number.isNaN(number) ? -1 : number;
      };
      const order = (a, b) => (a < b ? 1 : a > b ? -1 : 0);
      const rows = [...body.rows].sort((a, b) => (down ? 1 : -1) * order(value(a), value(b)));
      body.append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
