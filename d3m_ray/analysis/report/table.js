"use strict";
// Tables sort by their heads, can be filtered and saved; texts are shown when asked for. Without this all is readable.
(() => {
  document.documentElement.classList.add("js");
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const element = (name, properties) => Object.assign(document.createElement(name), properties);
  const plural = (number) => `${number} row${number === 1 ? "" : "s"}`;
  const rawOf = (cell) => cell.dataset.key ?? cell.textContent.trim();

  function compare(kind, sign) {
    return (a, b) => {
      if (a.raw === "" || b.raw === "") return (a.raw === "") - (b.raw === ""); // missing values last, both ways
      return sign * (kind === "number" ? Number(a.raw) - Number(b.raw) : collator.compare(a.raw, b.raw));
    };
  }

  function quoted(text) {
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function asCsv(heads, rows) {
    const names = heads.flatMap((th) => [th.dataset.name, ...(th.dataset.bounds?.split(" ") ?? [])]);
    const values = rows.map((row) =>
      [...row.cells].flatMap((cell, index) =>
        heads[index].dataset.bounds ? [rawOf(cell), cell.dataset.low ?? "", cell.dataset.high ?? ""] : [rawOf(cell)],
      ),
    );
    return [names, ...values].map((line) => line.map(quoted).join(",")).join("\r\n") + "\r\n";
  }

  function save(text, name) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    element("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  for (const block of document.querySelectorAll(".table")) {
    const table = block.querySelector("table");
    if (!table) continue;
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const limit = Number(block.dataset.shown);
    const title = block.querySelector("h3").textContent;
    let isShort = body.rows.length > limit;

    const filter = element("input", { type: "search", placeholder: "Filter rows", ariaLabel: `Filter rows of: ${title}` });
    const all = element("button", { type: "button" });
    const csv = element("button", { type: "button", textContent: "Save as CSV" });
    const count = element("output", {});

    function show() {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let matching = 0;
      let shown = 0;
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        const isMatch = words.every((word) => text.includes(word));
        matching += isMatch;
        const isBeyond = isShort && words.length === 0 && matching > limit;
        row.classList.toggle("filtered", !isMatch);
        row.classList.toggle("beyond", isMatch && isBeyond);
        shown += isMatch && !isBeyond;
      }
      count.textContent = shown === body.rows.length ? plural(shown) : `${shown} of ${plural(body.rows.length)}`;
      all.textContent = isShort ? `Show all ${body.rows.length}` : `Show the first ${limit}`;
      all.setAttribute("aria-expanded", String(!isShort));
    }

    heads.forEach((th, index) => {
      th.querySelector("button").addEventListener("click", () => {
        const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        th.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => ({ row, raw: rawOf(row.cells[index]) }));
        body.append(...rows.sort(compare(th.dataset.kind, sign)).map(({ row }) => row));
        show();
      });
    });
    filter.addEventListener("input", show);
    all.addEventListener("click", () => {
      isShort = !isShort;
      show();
    });
    csv.addEventListener("click", () => save(asCsv(heads, [...body.rows]), `${block.id}.csv`));
    const tools = element("div", { className: "tools" });
    if (body.rows.length > 3) tools.append(filter);
    if (isShort) tools.append(all);
    if (!table.querySelector(".veiled")) tools.append(csv); // texts are read with `python -m d3m_ray examples`
    tools.append(count);
    block.querySelector(".scroll").before(tools);
    show();
  }

  function veil(cell, isOpen) {
    cell.classList.toggle("open", isOpen);
    cell.querySelector("bdi").ariaHidden = String(!isOpen);
    const button = cell.querySelector(".veil");
    button.textContent = isOpen ? "Hide text" : "Show text";
    button.setAttribute("aria-expanded", String(isOpen));
  }

  const veiled = [...document.querySelectorAll(".veiled")];
  for (const cell of veiled) {
    cell.querySelector(".veil").addEventListener("click", () => veil(cell, !cell.classList.contains("open")));
    cell.querySelector("bdi").addEventListener("click", () => veil(cell, true));
  }
  const places = document.querySelectorAll("[data-switch]");
  for (const place of places) {
    const button = element("button", { type: "button", className: "switch", textContent: "Show all texts" });
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const isOpen = button.getAttribute("aria-pressed") === "false";
      veiled.forEach((cell) => veil(cell, isOpen));
      button.setAttribute("aria-pressed", String(isOpen));
      button.textContent = isOpen ? "Hide all texts" : "Show all texts";
    });
    place.append(button);
  }
  let opened = []; // the legends are part of what is printed
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => (details.open = true));
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
})();
