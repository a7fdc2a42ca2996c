// What is shown: chosen options, filters and the order of tables, kept in the fragment of the address.
const view = (() => {
  const controls = [...document.querySelectorAll("[data-state], [data-filter]")];
  const nameOf = (control) => control.dataset.state || control.dataset.filter;
  let first = new Map();
  const followers = [];
  const initialOrder = { sort: "Robustness", order: "descending" };
  let order = initialOrder;

  // An option is known by its name, which stays when runs are added, else by its value.
  const chosen = (control) => control.selectedOptions?.[0]?.dataset.name ?? control.value;
  const choose = (control, text) => {
    if (!control.options) control.value = text;
    const option = [...(control.options ?? [])].find((each) => (each.dataset.name ?? each.value) === text);
    if (option) control.value = option.value;
  };

  // Show one member of each group and hide the others.
  const switchTo = (select) => {
    for (const member of document.querySelectorAll("[data-member]")) {
      if (member.dataset.member === select.dataset.switch) member.hidden = member.dataset.option !== select.value;
    }
  };

  // Hide the rows of models that do not match.
  const filter = () => {
    const wanted = Object.fromEntries(controls.map((control) => [nameOf(control), control.value]));
    const [all, matching] = [new Set(), new Set()];
    for (const row of document.querySelectorAll("tr[data-family]")) {
      const { entry, family, size } = row.dataset;
      const name = row.cells[0].textContent.toLowerCase();
      const matches =
        (!wanted.family || wanted.family === family) &&
        (!wanted.size || wanted.size === size) &&
        name.includes((wanted.name || "").trim().toLowerCase());
      row.hidden = !matches;
      all.add(entry);
      if (matches) matching.add(entry);
    }
    for (const part of document.querySelectorAll("[data-rows]")) {
      part.hidden = !part.querySelector("tr[data-family]:not([hidden])");
    }
    const output = document.getElementById("matches");
    if (output) output.value = matching.size === all.size ? "" : `${matching.size} of ${all.size} lines match`;
    for (const heading of document.querySelectorAll("th[data-lang]")) {
      heading.classList.toggle("chosen", heading.dataset.lang === wanted.language);
    }
  };

  // Sort the tables that have the column; what was not measured stays last.
  const value = (row, column) => {
    const given = row.cells[column].dataset.value;
    if (given === undefined || given === "") return null;
    return Number.isNaN(Number(given)) ? given : Number(given);
  };
  const compare = (left, right) =>
    typeof left === "number" && typeof right === "number"
      ? left - right
      : String(left).localeCompare(String(right), "en");
  const sort = () => {
    const sign = order.order === "descending" ? -1 : 1;
    for (const button of document.querySelectorAll("th button")) {
      const heading = button.closest("th");
      const table = heading.closest("table");
      if (button.textContent !== order.sort) continue;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order.order);
      for (const body of table.tBodies) {
        const rows = [...body.rows].map((row) => [value(row, heading.cellIndex), row]);
        rows.sort(([left], [right]) => {
          if (left === null || right === null) return (left === null) - (right === null);
          return sign * compare(left, right);
        });
        body.append(...rows.map(([, row]) => row));
      }
    }
  };

  // The state as a fragment: only what was changed.
  const fragment = () => {
    const state = new URLSearchParams();
    for (const control of controls) {
      if (control.value !== first.get(control)) state.set(nameOf(control), chosen(control));
    }
    if (order !== initialOrder) for (const [name, text] of Object.entries(order)) state.set(name, text);
    return state;
  };

  const show = () => {
    for (const select of document.querySelectorAll("select[data-switch]")) switchTo(select);
    filter();
    for (const follower of followers) follower();
    numbers.hide();
    for (const link of document.querySelectorAll("a.permalink")) {
      const state = fragment();
      state.set("at", link.dataset.at);
      link.setAttribute("href", `#${state}`);
    }
  };

  const changed = () => {
    show();
    history.replaceState(null, "", `#${fragment()}`);
  };

  // Go to a section or, as older links do, to a run by its place on the page.
  const arrive = (id) => {
    const target = document.getElementById(id);
    const select = document.getElementById("choose-run");
    if (!target) return;
    if (select && target.dataset.member === select.dataset.switch) {
      select.value = target.dataset.option;
      show();
    }
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  };

  const follow = () => {
    const hash = location.hash.slice(1);
    if (!hash.includes("=")) {
      arrive(hash);
      return;
    }
    const state = new URLSearchParams(hash);
    for (const control of controls) {
      control.value = first.get(control);
      if (state.has(nameOf(control))) choose(control, state.get(nameOf(control)));
    }
    order = state.has("sort")
      ? { sort: state.get("sort"), order: state.get("order") === "ascending" ? "ascending" : "descending" }
      : initialOrder;
    sort();
    show();
    if (state.has("at")) arrive(state.get("at"));
  };

  const start = () => {
    for (const hidden of document.querySelectorAll(".controls, .scripted")) hidden.hidden = false;
    for (const button of document.querySelectorAll("th button")) {
      button.addEventListener("click", () => {
        const heading = button.closest("th");
        const before = heading.getAttribute("aria-sort");
        const opposite = before === "descending" ? "ascending" : "descending";
        order = { sort: button.textContent, order: before ? opposite : heading.dataset.first };
        sort();
        changed();
      });
    }
    for (const select of document.querySelectorAll("select[data-switch]:not([data-state])")) {
      select.addEventListener("change", show);
    }
    for (const control of controls) control.addEventListener(control.options ? "change" : "input", changed);
    const form = document.getElementById("filters");
    form?.addEventListener("submit", (event) => event.preventDefault());
    form?.addEventListener("reset", () => setTimeout(changed));
    window.addEventListener("hashchange", follow);
    show();
    first = new Map(controls.map((control) => [control, control.value]));
    show();
    follow();
  };

  return { start, followers };
})();
