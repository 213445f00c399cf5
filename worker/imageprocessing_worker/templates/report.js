"use strict";
// Without this script both pictures of a pair stand side by side, and there is no search.
document.documentElement.classList.add("scripted");

for (const pair of document.querySelectorAll(".pair")) {
  const range = pair.querySelector("input");
  const show = () => {
    pair.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % before`);
  };
  range.addEventListener("input", show);
  show(); // a browser that goes back restores the value
}

const search = document.getElementById("search");
if (search) {
  const said = document.querySelector("output[for=search]");
  const rows = Array.from(document.querySelectorAll(".failures tbody tr"), (row) => ({
    row,
    text: Array.from(row.cells, (cell) => cell.textContent).join("\n").toLowerCase(),
  }));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { row, text } of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      found += !row.hidden;
    }
    said.value = words.length ? `${found.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown` : "";
  };
  search.addEventListener("input", filter);
  search.closest("[hidden]").hidden = false;
  filter();
}
