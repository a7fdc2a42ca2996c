"use strict";
// One row at a time; corrections are kept in this browser until they are exported. Texts are only ever text.
const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const key = `polyrefuse-review-${data.digest}`;
let position = 0;
let kept = { who: "", rows: {} };
try {
  kept = JSON.parse(localStorage.getItem(key)) || kept;
} catch {
  element("kept").textContent = "This browser keeps nothing: export before you close the page.";
}

function keep() {
  const row = data.rows[position];
  const correction = element("correction").value;
  const comment = element("comment").value;
  if (correction || comment) kept.rows[row.key] = { correction, comment };
  else delete kept.rows[row.key];
  kept.who = element("who").value;
  try {
    localStorage.setItem(key, JSON.stringify(kept));
  } catch {
    element("kept").textContent = "This browser keeps nothing: export before you close the page.";
  }
  count();
}

function count() {
  const corrected = Object.values(kept.rows).filter((row) => row.correction.trim()).length;
  element("done").textContent = `${corrected} corrected`;
}

function show(number) {
  position = Math.max(0, Math.min(data.rows.length - 1, number));
  const row = data.rows[position];
  const there = kept.rows[row.key] || { correction: "", comment: "" };
  element("place").textContent = `${position + 1} of ${data.rows.length}`;
  element("row").textContent = `${row.id} (${row.lang}, ${row.label})`;
  element("flags").textContent = row.flags || "none";
  element("scores").textContent = row.scores;
  element("text_en").textContent = row.text_en;
  element("text").textContent = row.text;
  element("back").textContent = row.back || "none at hand";
  element("correction").value = there.correction;
  element("comment").value = there.comment;
  const candidates = element("candidates");
  candidates.replaceChildren(
    ...row.candidates.map((candidate, index) => {
      const item = document.createElement("li");
      const take = document.createElement("button");
      take.type = "button";
      take.textContent = index < 9 ? `Take (Alt+${index + 1})` : "Take";
      take.addEventListener("click", () => pick(index));
      const text = document.createElement("bdi");
      text.textContent = candidate.text;
      text.lang = row.lang;
      item.append(take, " ", text, ` (${candidate.reason})`);
      return item;
    }),
  );
  element("others").hidden = row.candidates.length === 0;
  for (const id of ["text", "correction"]) {
    element(id).lang = row.lang;
    element(id).dir = data.right_to_left.includes(row.lang) ? "rtl" : "ltr";
  }
  element("correction").focus();
  count();
}

function pick(number) {
  const candidate = data.rows[position].candidates[number];
  if (!candidate) return;
  element("correction").value = candidate.text;
  element("correction").focus();
  keep();
}

// A spreadsheet runs what begins so: the same rule as that of the importer.
const escaped = (text) => (/^'*[=+\-@\t\r＝＋－＠]/.test(text) ? `'${text}` : text);
const cell = (text) => `"${escaped(text).replaceAll('"', '""')}"`;

function exported() {
  const lines = [data.columns.map(cell).join(",")];
  for (const row of data.rows) {
    const there = kept.rows[row.key];
    if (!there) continue;
    const values = { ...row, ...there, who: there.correction.trim() ? kept.who : "" };
    lines.push(data.columns.map((name) => cell(values[name])).join(","));
  }
  return `\ufeff${lines.join("\r\n")}\r\n`;
}

function save() {
  keep();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exported()], { type: "text/csv" }));
  link.download = "review.csv";
  link.click();
  element("kept").textContent = "Exported review.csv; take it in with: polyrefuse review import review.csv";
}

function move(step) {
  keep();
  show(position + step);
}

element("previous").addEventListener("click", () => move(-1));
element("next").addEventListener("click", () => move(1));
element("export").addEventListener("click", save);
for (const id of ["correction", "comment", "who"]) element(id).addEventListener("input", keep);
document.addEventListener("keydown", (event) => {
  const step = event.altKey ? { ArrowDown: 1, ArrowUp: -1 }[event.key] : undefined;
  const digit = event.altKey && /^Digit[1-9]$/.test(event.code) ? Number(event.code.slice(5)) : 0;
  if (digit) pick(digit - 1);
  else if (step || (event.key === "Enter" && event.ctrlKey)) move(step || 1);
  else if (event.altKey && event.key.toLowerCase() === "e") save();
  else return;
  event.preventDefault();
});
element("who").value = kept.who;
if (data.rows.length) show(0);
else element("place").textContent = "no rows";
