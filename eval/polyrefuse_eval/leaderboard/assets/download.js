// Charts and tables as files: one list of shapes, written as SVG or drawn as PNG; numbers as CSV.
(() => {
  const { element } = numbers;
  const SVG = "http://www.w3.org/2000/svg";
  const [CELL, ROW, LINE] = [40, 24, 18];
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const ruler = element("canvas").getContext("2d");
  const widest = (texts, size) => {
    ruler.font = `${size}px sans-serif`;
    return Math.max(0, ...texts.map((text) => ruler.measureText(text).width));
  };

  const box = (x, y, width, height) => `M${x} ${y}h${width}v${height}h${-width}z`;
  const round = (x, y, radius) =>
    `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0`;
  const number = (shape, name) => Number(shape.getAttribute(name) ?? 0);
  const outline = {
    rect: (shape) => box(...["x", "y", "width", "height"].map((name) => number(shape, name))),
    circle: (shape) => round(...["cx", "cy", "r"].map((name) => number(shape, name))),
    line: (shape) =>
      `M${number(shape, "x1")} ${number(shape, "y1")}L${number(shape, "x2")} ${number(shape, "y2")}`,
    path: (shape) => shape.getAttribute("d"),
  };

  // The shapes of an SVG element, with the colours that the page gives them.
  const shapesOf = (svg, dx, dy) =>
    [...svg.querySelectorAll("rect, circle, line, path, text")]
      .filter((shape) => !shape.classList.contains("hit"))
      .map((shape) => {
        const style = getComputedStyle(shape);
        if (shape.localName === "text") {
          const [x, y] = [number(shape, "x") + dx, number(shape, "y") + dy];
          const anchor = shape.getAttribute("text-anchor") ?? "start";
          return { text: shape.textContent, x, y, anchor, fill: style.fill, size: 11 };
        }
        return {
          d: outline[shape.localName](shape),
          dx,
          dy,
          fill: style.fill,
          opacity: Number(style.fillOpacity),
          stroke: style.stroke,
          width: Number.parseFloat(style.strokeWidth),
          dash: style.strokeDasharray === "none" ? [] : style.strokeDasharray.split(",").map(Number.parseFloat),
        };
      });

  // A chart with its legend, a line for each of its names.
  const chartPicture = (svg, top) => {
    const { width, height } = svg.viewBox.baseVal;
    const shapes = [];
    let y = top;
    const legend = svg.parentNode.querySelector(".legend");
    for (const item of legend ? legend.children : []) {
      shapes.push(...shapesOf(item.querySelector("svg"), 8, y));
      shapes.push({ text: item.textContent, x: 44, y: y + 9, anchor: "start", fill: css("--ink"), size: 11 });
      y += LINE;
    }
    return { width, height: y + height, shapes: [...shapes, ...shapesOf(svg, 0, y)] };
  };

  // A coloured table: names of columns upright, numbers in their colours.
  const tablePicture = (table, top) => {
    const visible = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const heads = [...table.tHead.rows[0].cells].slice(1);
    const names = heads.map((head) => [".name", ".code"].map((part) => head.querySelector(part).textContent));
    const left = 20 + widest(visible.map((row) => row.cells[0].textContent.trim()), 12);
    const head = 26 + widest(names.map(([name]) => name), 12);
    const ink = css("--ink");
    const shapes = [];
    names.forEach(([name, code], column) => {
      const x = left + CELL * (column + 0.5);
      shapes.push({ text: name, x: x + 4, y: top + head - 20, anchor: "start", upright: true, fill: ink, size: 12 });
      shapes.push({ text: code, x, y: top + head - 5, anchor: "middle", fill: ink, size: 11 });
    });
    visible.forEach((row, index) => {
      const y = top + head + ROW * index;
      const title = row.cells[0].textContent.trim();
      shapes.push({ text: title, x: left - 6, y: y + 16, anchor: "end", fill: ink, size: 12 });
      [...row.cells].slice(1).forEach((cell, column) => {
        const style = getComputedStyle(cell);
        const [x, wide] = [left + CELL * column, CELL * cell.colSpan];
        const shaded = cell.dataset.value !== undefined;
        if (shaded) shapes.push({ d: box(x + 0.5, y + 0.5, wide - 1, ROW - 1), fill: style.backgroundColor });
        const fill = shaded ? style.color : css("--quiet");
        shapes.push({ text: cell.textContent.trim(), x: x + wide / 2, y: y + 16, anchor: "middle", fill, size: 12 });
      });
    });
    return { width: left + CELL * heads.length + 12, height: top + head + ROW * visible.length + 8, shapes };
  };

  const titleOf = (target) => {
    const run = target.closest("article")?.querySelector("h3")?.firstChild.textContent.trim();
    return [run, target.dataset.download].filter(Boolean).join(": ");
  };

  // Title above, and below it what the numbers depend on, so that a picture does not travel without it.
  const picture = (target) => {
    const facts = document.querySelector(".facts");
    const signature = target.closest("[data-entry]")
      ? target.closest("article").querySelector(".signature")
      : facts;
    const own = { "Data set": target.dataset.set, Judge: target.dataset.judge };
    const lines = [...signature.querySelectorAll("dt")]
      .filter((term) => ["Data set", "Judge", "Measured", "data", "judge"].includes(term.textContent))
      .map((term) => `${term.textContent}: ${own[term.textContent] || term.nextElementSibling.textContent.trim()}`)
      .filter((line, index, all) => all.indexOf(line) === index)
      .map((line) => line.replace(/\b([0-9a-f]{12})[0-9a-f]{20,}\b/g, "$1\u2026").slice(0, 100));
    const top = 30 + 14 * lines.length + 8;
    const drawn = target.localName === "svg" ? chartPicture(target, top) : tablePicture(target, top);
    const title = { text: titleOf(target), x: 8, y: 20, anchor: "start", fill: css("--ink"), size: 14 };
    const notes = lines.map((text, index) => {
      return { text, x: 8, y: 38 + 14 * index, anchor: "start", fill: css("--quiet"), size: 11 };
    });
    const longest = Math.max(widest([title.text], 14), widest(lines, 11));
    const width = Math.ceil(Math.max(drawn.width, longest + 16));
    const height = Math.ceil(drawn.height);
    const paper = { d: box(0, 0, width, height), fill: css("--paper") };
    return { width, height, shapes: [paper, title, ...notes, ...drawn.shapes] };
  };

  const asSvg = ({ width, height, shapes }) => {
    const root = document.createElementNS(SVG, "svg");
    const set = (made, values) => {
      for (const [name, value] of Object.entries(values)) if (value !== undefined) made.setAttribute(name, value);
      return made;
    };
    set(root, { xmlns: SVG, viewBox: `0 0 ${width} ${height}`, width, height, "font-family": "sans-serif" });
    for (const shape of shapes) {
      const made = document.createElementNS(SVG, shape.d === undefined ? "text" : "path");
      const { x, y, dx = 0, dy = 0, fill, stroke, opacity } = shape;
      set(made, { fill });
      if (shape.d === undefined) {
        made.textContent = shape.text;
        set(made, { x, y, "text-anchor": shape.anchor, "font-size": shape.size });
        if (shape.upright) set(made, { transform: `rotate(-90 ${x} ${y})` });
      } else {
        set(made, { d: shape.d, stroke, "stroke-width": shape.width, "fill-opacity": opacity });
        if (shape.dash?.length) set(made, { "stroke-dasharray": shape.dash.join(" ") });
        if (dx || dy) set(made, { transform: `translate(${dx} ${dy})` });
      }
      root.append(made);
    }
    return new Blob([new XMLSerializer().serializeToString(root)], { type: "image/svg+xml" });
  };

  const asPng = ({ width, height, shapes }) => {
    const canvas = element("canvas");
    [canvas.width, canvas.height] = [2 * width, 2 * height];
    const pen = canvas.getContext("2d");
    for (const shape of shapes) {
      pen.setTransform(2, 0, 0, 2, 0, 0);
      pen.fillStyle = shape.fill;
      if (shape.d === undefined) {
        pen.font = `${shape.size}px sans-serif`;
        pen.textAlign = { start: "left", middle: "center", end: "right" }[shape.anchor];
        pen.translate(shape.x, shape.y);
        if (shape.upright) pen.rotate(-Math.PI / 2);
        pen.fillText(shape.text, 0, 0);
        continue;
      }
      pen.translate(shape.dx ?? 0, shape.dy ?? 0);
      const path = new Path2D(shape.d);
      pen.globalAlpha = shape.opacity ?? 1;
      if (shape.fill !== "none") pen.fill(path);
      pen.globalAlpha = 1;
      if (!shape.stroke || shape.stroke === "none") continue;
      [pen.strokeStyle, pen.lineWidth] = [shape.stroke, shape.width];
      pen.setLineDash(shape.dash);
      pen.stroke(path);
    }
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  };

  // A cell of CSV; a text that a spreadsheet would take for a formula begins with an apostrophe.
  const field = (value) => {
    let text = String(value ?? "").replaceAll("\u00ad", "").replace(/\s+/g, " ").trim();
    if (/^[=+\-@＝＋－＠]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
    return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const asCsv = (target) => {
    const lines = [];
    const add = (...cells) => lines.push(cells.map(field).join(","));
    if (target.dataset.values) {
      add("panel", "line", "layer", "value");
      for (const [panel, name, values] of JSON.parse(target.dataset.values)) {
        for (const [layer, value] of values) add(panel, name, layer, value);
      }
    } else if (target.localName === "svg") {
      add("what", "value", "low", "high");
      for (const link of target.querySelectorAll("a.n")) {
        const { value, low, high } = link.dataset;
        add(link.getAttribute("aria-label"), value, low, high);
      }
    } else if (target.classList.contains("plain")) {
      for (const row of target.rows) add(...[...row.cells].map((cell) => cell.textContent));
    } else {
      const heads = [...target.tHead.rows[0].cells];
      const nameOf = (head) => head.querySelector(".code")?.textContent ?? head.textContent;
      add("row", "column", "value", "low", "high");
      for (const row of target.tBodies[0].rows) {
        for (const cell of [...row.cells].slice(1)) {
          const { value, low, high } = cell.dataset;
          const column = cell.dataset.label ?? (cell.colSpan > 1 ? "all" : nameOf(heads[cell.cellIndex]));
          if (!row.hidden) add(row.cells[0].textContent, column, value, low, high);
        }
      }
    }
    return new Blob(["\ufeff", lines.join("\n"), "\n"], { type: "text/csv" });
  };

  const save = async (target, ending, write) => {
    const name = titleOf(target).replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 100);
    const link = element("a");
    link.href = URL.createObjectURL(await write(target));
    link.download = `${name || "polyrefuse"}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  const WRITERS = {
    svg: (target) => asSvg(picture(target)),
    png: (target) => asPng(picture(target)),
    csv: asCsv,
  };
  for (const target of document.querySelectorAll("[data-download]")) {
    const isDrawn = target.localName === "svg" || target.classList.contains("grid");
    const list = element("div", "Download ", "download");
    for (const ending of isDrawn ? ["svg", "png", "csv"] : ["csv"]) {
      const button = element("button", ending.toUpperCase());
      button.type = "button";
      button.setAttribute("aria-label", `Download as ${ending.toUpperCase()}: ${titleOf(target)}`);
      button.addEventListener("click", () => save(target, ending, WRITERS[ending]));
      list.append(button);
    }
    (target.closest(".scroll") ?? target).after(list);
  }
})();

view.start();
