"use strict";
for (const island of document.querySelectorAll('script[type="application/json"]')) {
  const rows = JSON.parse(island.textContent);
  const section = island.closest("section");
  const body = section.querySelector("tbody");
  const search = section.querySelector("input");
  const output = section.querySelector("output");
  let column = -1, descending = false;
  const shown = (value, at) =>
    value === null ? "" : at === 4 ? (100 * value).toPrecision(2) + " %" : String(value);
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) =>
      words.every((word) => (row[0] + " " + row[1] + " " + row[3]).toLowerCase().includes(word)));
    if (column >= 0) {
      found.sort((a, b) => {
        const [x, y] = descending ? [b[column], a[column]] : [a[column], b[column]];
        if (x === null || y === null) return (a[column] === null) - (b[column] === null);
        return typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
      });
    }
    const fragment = document.createDocumentFragment();
    for (const row of found) {
      const line = document.createElement("tr");
      if (row[1].includes("NaN")) line.className = "bad";
      row.forEach((value, at) => { line.insertCell().textContent = shown(value, at); });
      fragment.append(line);
    }
    body.replaceChildren(fragment);
    output.textContent = found.length + " of " + rows.length;
  };
  search.addEventListener("input", draw);
  for (const button of section.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const at = Number(button.dataset.column);
      descending = column === at ? !descending : at > 3;
      column = at;
      draw();
    });
  }
  draw();
}
