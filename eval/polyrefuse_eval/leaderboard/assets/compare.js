// Two models side by side: the numbers of the tables by language, and their differences.
(() => {
  const section = document.getElementById("compare");
  if (!section) return;
  const { element, arrows } = numbers;
  const [first, second] = ["first", "second"].map((name) => document.getElementById(`compare-${name}`));
  const table = section.querySelector("table");
  const maps = document.getElementById("compared-maps");
  const status = document.getElementById("compared");
  const RATES = ["Refused, no edit", "Refused, direction ablated", "Over-refusal"];
  const OF_EDITS = "Refused, direction ablated";

  const header = (text, scope, name) => {
    const cell = element("th", text);
    cell.setAttribute("scope", scope);
    cell.setAttribute("role", name);
    return cell;
  };
  const row = (...cells) => {
    const made = element("tr");
    made.setAttribute("role", "row");
    made.append(...cells);
    return made;
  };
  const group = (name, ...rows) => {
    const made = element(name);
    made.setAttribute("role", "rowgroup");
    made.append(...rows);
    return made;
  };
  const nameOf = (select, part) => select.selectedOptions[0].textContent.split(" · ")[part];
  const points = (share) => (100 * share).toFixed(1).replace(/^-(0\.0)$/, "$1").replace("-", "\u2212");

  // The interval of a difference of two independent rates from their own intervals: Newcombe (1998), method 10.
  const difference = (cells) => {
    const [left, right] = cells.map((cell) =>
      ["value", "low", "high"].map((name) => (cell?.dataset[name] ? Number(cell.dataset[name]) : NaN)),
    );
    const between = left[0] - right[0];
    const low = between - Math.hypot(left[0] - left[1], right[2] - right[0]);
    const high = between + Math.hypot(left[2] - left[0], right[0] - right[1]);
    return { between, low, high, differs: low > 0 || high < 0 };
  };

  const differenceCell = (label, { between, low, high, differs }) => {
    const cell = element("td", undefined, "difference");
    cell.setAttribute("role", "cell");
    cell.dataset.label = label;
    if (Number.isNaN(between)) {
      cell.append(element("span", "\u2013", "absent"));
      return cell;
    }
    cell.dataset.value = between;
    const text = element(differs ? "strong" : "span", `${points(between)} points`);
    const inner = element("div");
    inner.append(text);
    if (!Number.isNaN(low)) {
      [cell.dataset.low, cell.dataset.high] = [low, high];
      inner.append(" ", element("span", `[${points(low)}, ${points(high)}]`, "interval"));
    }
    cell.append(inner);
    return cell;
  };

  const copied = (cell, entry, label) => {
    const made = cell ? cell.cloneNode(true) : element("td");
    made.setAttribute("role", "cell");
    made.dataset.label = label;
    made.dataset.entry = entry;
    if (!cell) made.append(element("span", "not measured", "absent"));
    for (const more of made.querySelectorAll(".more")) more.remove();
    for (const link of made.querySelectorAll("[aria-describedby]")) link.removeAttribute("aria-describedby");
    return made;
  };

  // The transfer tables of both under ablation, in the same colours, sizes and order of languages.
  const drawMaps = (entries) => {
    const grids = entries.map((entry) => document.querySelector(`article[data-entry="${entry}"] table.grid`));
    if (!grids.every(Boolean)) return;
    [first, second].forEach((select, index) => {
      const copy = grids[index].cloneNode(true);
      const model = `${nameOf(select, 0)}, run ${nameOf(select, 1)}`;
      const title = copy.dataset.download;
      copy.removeAttribute("aria-labelledby");
      copy.removeAttribute("data-download");
      copy.setAttribute("aria-label", `${model}: ${title}`);
      for (const link of copy.querySelectorAll("[aria-describedby]")) link.removeAttribute("aria-describedby");
      arrows(copy);
      const scroll = element("div", undefined, "scroll");
      scroll.append(copy);
      const figure = element("figure", undefined, "map");
      figure.dataset.entry = entries[index];
      figure.append(element("figcaption", model), element("p", title, "quiet"), scroll);
      maps.append(figure);
    });
  };

  // Only what has the same judge, data and settings of answers may be compared.
  const allow = () => {
    const group = first.selectedOptions[0]?.dataset.group;
    for (const option of second.options) {
      option.disabled = option.dataset.group !== group || option.value === first.value;
    }
    if (!second.selectedOptions[0] || second.selectedOptions[0].disabled) {
      second.value = [...second.options].find((option) => !option.disabled)?.value ?? "";
    }
  };

  const draw = () => {
    allow();
    table.replaceChildren();
    maps.replaceChildren();
    if (!second.value) {
      status.textContent = "No other run has the same judge, data and settings of answers.";
      return;
    }
    const entries = [first.value, second.value];
    const rowsOf = (language) =>
      entries.map((entry) => language.querySelector(`tbody tr[data-entry="${entry}"]`));
    const sameEdits = first.selectedOptions[0].dataset.board === second.selectedOptions[0].dataset.board;
    const rates = RATES.filter((rate) => sameEdits || rate !== OF_EDITS);
    const counts = new Map(rates.map((rate) => [rate, [0, 0]]));
    const lines = new Map();
    for (const language of document.querySelectorAll("table[data-language]")) {
      const line = lines.get(language.dataset.language) ?? { name: language.dataset.name, rows: [null, null] };
      rowsOf(language).forEach((found, index) => (line.rows[index] ??= found));
      lines.set(language.dataset.language, line);
    }
    const body = [];
    for (const { name, rows } of lines.values()) {
      if (rows.every((each) => each === null)) continue;
      const cells = [];
      for (const rate of rates) {
        const pair = rows.map((each) => each?.querySelector(`td[data-label="${rate}"]`));
        const between = difference(pair);
        if (!Number.isNaN(between.between)) counts.get(rate)[1] += 1;
        if (between.differs) counts.get(rate)[0] += 1;
        cells.push(
          copied(pair[0], entries[0], `${rate}: first`),
          copied(pair[1], entries[1], `${rate}: second`),
          differenceCell(`${rate}: difference`, between),
        );
      }
      body.push(row(header(name, "row", "rowheader"), ...cells));
    }
    const heads = rates.map((rate) => header(rate, "colgroup", "columnheader"));
    for (const head of heads) head.colSpan = 3;
    const models = [first, second].map((select) => nameOf(select, 0));
    const runs = [first, second].map((select) => nameOf(select, 1));
    const names = rates.flatMap(() => [...(models[0] === models[1] ? runs : models), "Difference"]);
    const columns = names.map((text) => header(text, "col", "columnheader"));
    const corner = header("Language", "col", "columnheader");
    corner.rowSpan = 2;
    table.append(group("thead", row(corner, ...heads), row(...columns)), group("tbody", ...body));
    if (sameEdits) drawMaps(entries);
    const said = [...counts]
      .filter(([, [, all]]) => all)
      .map(([rate, [differing, all]]) => `${rate}: ${differing} of ${all}`);
    status.textContent =
      `Languages whose interval excludes 0. ${said.join("; ")}.` +
      (sameEdits ? "" : " Their edits were measured with other settings, so ablated rates are left out.");
  };

  view.followers.push(draw);
  draw();
})();
