"use strict";
// Numbers: what each one is, on hover, focus and tap; arrow keys inside charts and coloured tables.
const numbers = (() => {
  const signatures = JSON.parse(document.getElementById("signatures").textContent);
  const tip = document.getElementById("tip");
  let shownFor = null;
  let hiding = 0;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  // What a number is, its signature, and where its JSON stands; text only, never markup.
  const show = (link) => {
    clearTimeout(hiding);
    if (shownFor === link) return;
    hide();
    shownFor = link;
    const holder = link.closest("[data-entry]");
    const lines = element("dl", undefined, "signature");
    for (const [name, text] of Object.entries(holder ? signatures[holder.dataset.entry] : {})) {
      const short = text.replace(/\b([0-9a-f]{16})[0-9a-f]{16,}\b/g, "$1…");
      lines.append(element("dt", name), element("dd", short));
    }
    const address = link.getAttribute("href");
    tip.replaceChildren(
      element("p", link.dataset.told, "told"),
      lines,
      element("p", `JSON: ${decodeURIComponent(address)}`, "quiet"),
    );
    tip.hidden = false;
    link.setAttribute("aria-describedby", "tip");
    place(link);
  };

  // Below the number, else above it; beside it where it is too tall for either.
  const place = (link) => {
    const at = link.getBoundingClientRect();
    const [width, height] = [document.documentElement.clientWidth, window.innerHeight];
    const [wide, high] = [tip.offsetWidth, tip.offsetHeight];
    let [left, top] = [at.left, at.bottom + 6];
    if (top + high > height) {
      if (at.top - high - 6 >= 0) top = at.top - high - 6;
      else {
        top = Math.max(8, height - high - 8);
        left = at.right + 8 + wide < width ? at.right + 8 : at.left - wide - 8;
      }
    }
    tip.style.left = `${Math.max(8, Math.min(left, width - wide - 8)) + window.scrollX}px`;
    tip.style.top = `${top + window.scrollY}px`;
  };

  const hide = () => {
    clearTimeout(hiding);
    if (shownFor) shownFor.removeAttribute("aria-describedby");
    shownFor = null;
    tip.hidden = true;
  };

  const hideSoon = () => {
    clearTimeout(hiding);
    hiding = setTimeout(hide, 150);
  };

  const number = (event) => (event.target instanceof Element ? event.target.closest("a.n") : null);

  document.addEventListener("mouseover", (event) => {
    const link = number(event);
    if (link) show(link);
    else if (event.target instanceof Element && event.target.closest("#tip")) clearTimeout(hiding);
    else if (shownFor && shownFor !== document.activeElement) hideSoon();
  });
  document.addEventListener("focusin", (event) => {
    const link = number(event);
    if (link) show(link);
    else hide();
  });
  document.addEventListener("focusout", hideSoon);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  // A finger cannot hover: its first tap shows what the number is, its second opens the JSON.
  let touched = null;
  document.addEventListener("pointerdown", (event) => {
    const link = number(event);
    touched = event.pointerType === "touch" && link && shownFor !== link ? link : null;
  });
  document.addEventListener("click", (event) => {
    const link = number(event);
    if (link && link === touched) {
      event.preventDefault();
      show(link);
    }
    touched = null;
  });

  // One stop of the tab key for each grid or chart; arrow keys move inside it.
  for (const group of document.querySelectorAll("[data-arrows]")) {
    const all = [...group.querySelectorAll("a.n")];
    all.forEach((item, index) => item.setAttribute("tabindex", index ? "-1" : "0"));
    const columns = Number(group.dataset.arrows);
    group.addEventListener("keydown", (event) => {
      const from = event.target instanceof Element ? event.target.closest("a.n") : null;
      const items = all.filter((item) => !item.closest("[hidden]"));
      const to = from && next(group, items, from, event.key, columns);
      if (!to) return;
      event.preventDefault();
      from.setAttribute("tabindex", "-1");
      to.setAttribute("tabindex", "0");
      to.focus();
    });
  }

  function next(group, items, from, key, columns) {
    const index = items.indexOf(from);
    const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (sideways) return items[index + sideways];
    if (key === "Home") return items[0];
    if (key === "End") return items[items.length - 1];
    const upwards = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (!upwards) return null;
    if (group.tagName !== "TABLE") return items[index + upwards * columns];
    const cell = from.closest("td");
    const rows = [...group.tBodies[0].rows];
    for (let row = rows.indexOf(cell.parentNode) + upwards; row >= 0 && row < rows.length; row += upwards) {
      const link = rows[row].hidden ? null : rows[row].cells[cell.cellIndex]?.querySelector("a.n");
      if (link) return link;
    }
    return null;
  }

  return { element, hide };
})();
