
"use strict";

// What there is: a row for each image, the most abnormal first.
const get = (id) => document.getElementById(id);
const {title, threshold: runThreshold} = JSON.parse(get("settings").textContent);
const pictures = [...document.querySelectorAll(".thumbnails")];
const rows = [...document.querySelectorAll(".rows")].flatMap((element, block) =>
  JSON.parse(element.textContent).map(([path, score, pValue, label, regions, image, overlay, mask], place) => ({
    path, score, pValue, label: label === 1, regions, image, overlay, mask, block, place,
    key: path.normalize().toLowerCase(),
  })));
rows.sort((a, b) => b.score - a.score || (a.key < b.key ? -1 : 1));

const [lowest, highest] = range();
const decimals = Math.max(0, Math.min(8, 3 - Math.round(Math.log10(highest - lowest))));
const number = (value) => value.toFixed(decimals);
const count = (value) => value.toLocaleString("en");

let threshold = runThreshold;
let shown = rows; // the rows that search and selection leave
let current = 0; // the place in `shown` that has the focus or is open

function range() {
  let low = runThreshold, high = runThreshold;
  for (const {score} of rows) [low, high] = [Math.min(low, score), Math.max(high, score)];
  const margin = (high - low) * 0.02 || 0.5;
  const isShare = low >= 0 && high <= 1; // no room is needed where no score can be
  return isShare ? [Math.max(0, low - margin), Math.min(1, high + margin)] : [low - margin, high + margin];
}

// A verdict is that of the run at the run's threshold, and a comparison elsewhere. A tick says what the image truly is,
// so that it stays true when the threshold moves: "right" may become "wrong".
const isDefective = (row) => threshold === runThreshold ? row.label : row.score > threshold;
const word = (defective) => defective ? "defective" : "good";
const tickOf = (row) => !truth.has(row.path) ? "" : truth.get(row.path) === word(isDefective(row)) ? "right" : "wrong";

// Ticks are kept by the browser, for this file.
const store = `anomalib-clipad ticks: ${location.pathname}`;
let truth = readTicks();

function readTicks() {
  try {
    return new Map(JSON.parse(localStorage.getItem(store) || "[]"));
  } catch {
    return new Map();
  }
}

function keepTicks() {
  try {
    localStorage.setItem(store, JSON.stringify([...truth]));
    return true;
  } catch {
    return false;
  }
}

let kept = true;

function tick(row, answer) {
  if (tickOf(row) === answer) truth.delete(row.path);
  else truth.set(row.path, word(isDefective(row) === (answer === "right")));
  kept = keepTicks();
  if (!viewer.open) select();
  paint();
}

// The histogram is drawn once; the threshold only moves the edge between its two colours.
function drawHistogram() {
  const bins = new Array(80).fill(0);
  for (const {score} of rows) bins[Math.min(bins.length - 1, Math.floor(along(score) / 1000 * bins.length))] += 1;
  const most = Math.max(1, ...bins), width = 1000 / bins.length;
  const bars = bins.map((size, place) => {
    const height = size ? Math.max(3, 100 * Math.sqrt(size / most)) : 0;
    return `M${place * width} 100v${-height}h${width * 0.86}v${height}z`;
  }).join("");
  for (const path of get("histogram").querySelectorAll("path")) path.setAttribute("d", bars);
  moveLine(".run", runThreshold);
  get("lowest").textContent = number(lowest);
  get("highest").textContent = number(highest);
}

const along = (score) => 1000 * (score - lowest) / (highest - lowest);

function moveLine(which, score) {
  const line = get("histogram").querySelector(which);
  line.setAttribute("x1", along(score));
  line.setAttribute("x2", along(score));
}

function moveTo(value) {
  threshold = Math.min(highest, Math.max(lowest, value));
  later();
}

// Everything that depends on the threshold, the search or a tick, at most once a frame.
let waiting = false;

function later() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    if (!viewer.open) select();
    paint();
  });
}

function select() {
  const words = get("search").value.normalize().toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = {
    all: () => true,
    defective: isDefective,
    good: (row) => !isDefective(row),
    open: (row) => !truth.has(row.path),
    wrong: (row) => tickOf(row) === "wrong",
  }[get("show").value];
  shown = rows.filter((row) => wanted(row) && words.every((part) => row.key.includes(part)));
  current = Math.max(0, Math.min(current, shown.length - 1));
}

function paint() {
  const defective = rows.filter(isDefective).length;
  const ticks = rows.map(tickOf).filter(Boolean);
  const wrong = ticks.filter((answer) => answer === "wrong").length;
  const marked = document.createElement("b");
  marked.textContent = `${count(defective)} defective`;
  get("summary").replaceChildren(marked, ` of ${count(rows.length)} ${rows.length === 1 ? "image" : "images"} at ${number(threshold)}`);
  get("ticked").textContent = ticks.length
    ? `${count(ticks.length)} ticked: ${count(ticks.length - wrong)} right, ${count(wrong)} wrong`
      + (kept ? "" : ". This browser does not keep ticks: download them")
    : "Nothing ticked yet";
  get("download").disabled = !ticks.length;
  get("found").textContent = shown.length === rows.length ? "" : `${count(shown.length)} shown`;
  get("nothing").hidden = shown.length > 0;
  const edge = get("above").firstElementChild;
  edge.setAttribute("x", along(threshold));
  edge.setAttribute("width", 1000 - along(threshold));
  moveLine(".now", threshold);
  get("slider").value = along(threshold);
  get("slider").setAttribute("aria-valuetext", `${number(threshold)}, ${count(defective)} defective`);
  if (document.activeElement !== get("threshold")) get("threshold").value = number(threshold);
  get("reset").disabled = threshold === runThreshold;
  drawTiles();
  if (viewer.open) drawFacts();
}

// The grid: only what is near the window exists.
const grid = get("grid");
const tiles = new Map(); // row -> element
const HEIGHT = 232, NARROWEST = 186;

const columns = () => Math.max(1, Math.floor(grid.clientWidth / NARROWEST));

function drawTiles() {
  const across = columns(), width = grid.clientWidth / across;
  grid.style.height = `${Math.ceil(shown.length / across) * HEIGHT}px`;
  const top = scrollY - grid.offsetTop;
  const first = Math.max(0, Math.floor(top / HEIGHT) - 2) * across;
  const last = Math.min(shown.length, (Math.ceil((top + innerHeight) / HEIGHT) + 2) * across);
  const places = Array.from({length: Math.max(0, last - first)}, (_, step) => first + step);
  if (shown.length && (current < first || current >= last)) places.push(current); // keeps the focus
  places.sort((a, b) => a - b);
  const wanted = new Set(places.map((place) => shown[place]));
  for (const [row, tile] of tiles) {
    if (wanted.has(row)) continue;
    tile.remove();
    tiles.delete(row);
  }
  let next = grid.firstElementChild; // in the order of the page, without moving what stays: it may have the focus
  for (const place of places) {
    const row = shown[place];
    const tile = tiles.get(row) || makeTile(row);
    tiles.set(row, tile);
    tile.style.width = `${width}px`;
    tile.style.height = `${HEIGHT}px`;
    tile.style.transform = `translate(${place % across * width}px, ${Math.floor(place / across) * HEIGHT}px)`;
    tile.setAttribute("aria-posinset", place + 1);
    tile.setAttribute("aria-setsize", shown.length);
    label(tile, row, place);
    if (tile === next) next = next.nextElementSibling;
    else grid.insertBefore(tile, next);
  }
}

function make(tag, parent, className) {
  const element = document.createElement(tag);
  element.className = className;
  parent.append(element);
  return element;
}

function makeTile(row) {
  const tile = document.createElement("div");
  tile.setAttribute("role", "listitem");
  const button = make("button", tile, "open");
  button.type = "button";
  const image = make("img", button, "");
  image.alt = "";
  image.decoding = "async";
  const small = thumbnail(row);
  if (small) image.src = small;
  const line = make("span", button, "line");
  make("span", line, "score").textContent = number(row.score);
  make("span", line, "verdict");
  make("span", button, "file").textContent = row.path.split(/[\\/]/).at(-1);
  make("span", button, "tick");
  button.title = row.path;
  button.addEventListener("click", () => open(shown.indexOf(row)));
  button.addEventListener("focus", () => { current = shown.indexOf(row); later(); });
  return tile;
}

function label(tile, row, place) {
  const verdict = word(isDefective(row)), answer = tickOf(row), button = tile.firstElementChild;
  tile.className = `tile ${verdict}`;
  button.tabIndex = place === current ? 0 : -1;
  button.setAttribute("aria-label", `${row.path}, score ${number(row.score)}, ${verdict}${answer && `, ticked ${answer}`}`);
  button.querySelector(".verdict").textContent = verdict;
  const mark = button.querySelector(".tick");
  mark.textContent = answer;
  mark.className = `tick ${answer}`;
}

// Thumbnails stay text in the page until one of their block is seen.
const lines = [];

function thumbnail(row) {
  if (lines[row.block] === undefined) {
    lines[row.block] = pictures[row.block].textContent.split("\n");
    pictures[row.block] = undefined;
  }
  const data = lines[row.block][row.place];
  return data ? `data:image/jpeg;base64,${data}` : undefined;
}

function focus(place) {
  if (!shown.length) return;
  current = Math.max(0, Math.min(place, shown.length - 1));
  const top = grid.offsetTop + Math.floor(current / columns()) * HEIGHT;
  const header = document.querySelector("header");
  const covered = getComputedStyle(header).position === "sticky" ? header.offsetHeight : 0;
  if (top < scrollY + covered + 8) scrollTo(0, top - covered - 12);
  else if (top + HEIGHT > scrollY + innerHeight) scrollTo(0, top + HEIGHT - innerHeight);
  drawTiles();
  tiles.get(shown[current]).firstElementChild.focus({preventScroll: true});
}

// The viewer: image, heat map and mask side by side.
const viewer = get("viewer");

function open(place) {
  current = place;
  const row = shown[place];
  get("name").textContent = row.path;
  get("position").textContent = `${count(place + 1)} of ${count(shown.length)}`;
  get("previous").disabled = place === 0;
  get("next").disabled = place === shown.length - 1;
  show("image", row.image, `The image ${row.path}`, thumbnail(row));
  show("overlay", row.overlay, `Heat map of ${row.path}`);
  show("mask", row.mask, `Mask of ${row.path}`);
  drawFacts();
  if (!viewer.open) viewer.showModal();
}

function show(id, address, description, substitute) {
  const image = get(id), note = image.nextElementSibling;
  const lacking = (text) => {
    note.textContent = text;
    image.onerror = null;
    image.hidden = substitute === undefined;
    if (substitute === undefined) image.removeAttribute("src");
    else image.src = substitute;
  };
  note.textContent = "";
  image.hidden = false;
  image.alt = description;
  image.onerror = () => lacking("The file is not where it was when the page was written.");
  if (address === null) lacking(substitute === undefined ? "None was written." : "");
  else image.src = address;
}

function drawFacts() {
  const row = shown[current], verdict = word(isDefective(row)), answer = tickOf(row);
  const bold = document.createElement("b");
  bold.textContent = verdict;
  const facts = [`score ${number(row.score)}`];
  if (row.pValue !== null) facts.push(`p-value ${row.pValue.toPrecision(3)}`);
  facts.push(`${row.regions} ${row.regions === 1 ? "region" : "regions"}`);
  get("facts").replaceChildren(bold, ` \u00b7 ${facts.join(" \u00b7 ")}`);
  get("facts").className = verdict;
  for (const choice of ["right", "wrong"]) get(choice).setAttribute("aria-pressed", answer === choice);
}

const step = (by) => { if (shown[current + by]) open(current + by); };

get("previous").addEventListener("click", () => step(-1));
get("next").addEventListener("click", () => step(1));
get("close").addEventListener("click", () => viewer.close());
get("right").addEventListener("click", () => tick(shown[current], "right"));
get("wrong").addEventListener("click", () => tick(shown[current], "wrong"));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("close", () => {
  const row = shown[current];
  select(); // ticks may have taken rows out of the selection
  if (shown.includes(row)) current = shown.indexOf(row);
  paint();
  focus(current);
});

// Keys.
const ANSWERS = {1: "right", 2: "wrong"};

document.addEventListener("keydown", (event) => {
  const {key, target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select")) return;
  const moves = viewer.open ? {ArrowLeft: -1, ArrowRight: 1}
    : {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -Infinity, End: Infinity};
  const inside = viewer.open || grid.contains(target);
  if (inside && key in moves) viewer.open ? step(moves[key]) : focus(current + moves[key]);
  else if (inside && key in ANSWERS && shown.length) answer(ANSWERS[key]);
  else if (!viewer.open && key === "/") get("search").focus();
  else if (!viewer.open && key.toLowerCase() === "t") focus(shown.findLastIndex((row) => row.score > threshold));
  else return;
  event.preventDefault();
});

function answer(choice) {
  tick(shown[current], choice);
  if (!viewer.open) focus(current);
}

// The ticks as CSV. A spreadsheet takes what begins like a formula for one; an apostrophe prevents it.
function csv() {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const table = [["path", "score", "p_value", "threshold", "label", "tick", "truth"]];
  for (const row of rows) {
    if (!truth.has(row.path)) continue;
    table.push([row.path, row.score, row.pValue, threshold, word(isDefective(row)), tickOf(row), truth.get(row.path)]);
  }
  return table.map((cells) => `${cells.map(cell).join(",")}\r\n`).join("");
}

get("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv;charset=utf-8"}));
  link.download = "ticks.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
});

get("slider").addEventListener("input", (event) => moveTo(lowest + event.target.value / 1000 * (highest - lowest)));
get("threshold").addEventListener("change", (event) => {
  if (event.target.value !== "") moveTo(event.target.valueAsNumber);
  event.target.blur();
});
get("reset").addEventListener("click", () => moveTo(runThreshold));
get("search").addEventListener("input", () => { current = 0; scrollTo(0, 0); later(); });
get("show").addEventListener("change", () => { current = 0; scrollTo(0, 0); later(); });
addEventListener("scroll", () => requestAnimationFrame(drawTiles), {passive: true});
new ResizeObserver(() => drawTiles()).observe(grid);
addEventListener("storage", (event) => {
  if (event.key !== store) return;
  truth = readTicks();
  later();
});

drawHistogram();
paint();
requestAnimationFrame(() => performance.mark("tiles"));
