"use strict";
for (const island of document.querySelectorAll('script[type="application/json"]')) {
  const rows = JSON.parse(island.textContent);
  const section = island.closest("section");
  const body = section.querySelector(".tall tbody");
  const search = section.querySelector("input");
  const output = section.querySelector("output");
  const heads = [...section.querySelectorAll("th button")];
  let column = -1, descending = false;
  const sizes = (bytes) => {
    let unit = 0;
    while (bytes >= 999.5 && unit < 4) { bytes /= 1000; unit += 1; }
    return (unit ? bytes.toPrecision(3) : bytes) + " " + ["B", "kB", "MB", "GB", "TB"][unit];
  };
  const shown = (value, at) =>
    value === null ? "" : at === 4 ? Number((100 * value).toPrecision(3)) + " %" :
    at === 7 ? (value ? sizes(value) : "") : String(value);
  const texts = rows.map((row) => row.slice(0, 4).join(" ").toLowerCase());
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row, at) => words.every((word) => texts[at].includes(word)));
    if (column >= 0) {
      const order = new Intl.Collator("en", { numeric: true }).compare;
      found.sort((a, b) => {
        const [x, y] = descending ? [b[column], a[column]] : [a[column], b[column]];
        if (x === null || y === null) return (a[column] === null) - (b[column] === null);
        return typeof x === "number" ? x - y : order(x, y);
      });
    }
    const fragment = document.createDocumentFragment();
    for (const row of found) {
      const line = document.createElement("tr");
      if (row[1].includes("NaN")) line.className = "bad";
      row.forEach((value, at) => {
        const cell = line.insertCell();
        cell.textContent = shown(value, at);
        if (at > 3) cell.className = "n";
      });
      fragment.append(line);
    }
    body.replaceChildren(fragment);
    output.textContent = found.length + " of " + rows.length;
    heads.forEach((head, at) => {
      const cell = head.closest("th");
      if (at === column) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  };
  search.addEventListener("input", draw);
  heads.forEach((head, at) => {
    if (at > 3) head.closest("th").className = "n";
    head.addEventListener("click", () => {
      descending = column === at ? !descending : at > 3;
      column = at;
      draw();
    });
  });
  const map = section.querySelector(".map");
  if (map) {
    map.addEventListener("click", (event) => {
      const cell = event.target.closest("i");
      if (!cell) return;
      search.value = cell.title.slice(0, cell.title.lastIndexOf(": "));
      draw();
      search.scrollIntoView({ block: "start" });
    });
  }
  draw();
}
