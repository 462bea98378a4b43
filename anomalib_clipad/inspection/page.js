
"use strict";

// What there is: a row for each image, the most abnormal first; before them those whose score is no number.
const get = (id) => document.getElementById(id);
const {threshold: runThreshold, decided, decision, notes, audit} = JSON.parse(get("settings").textContent);
const pictures = [...document.querySelectorAll(".thumbnails")];
const heats = [...document.querySelectorAll(".heat-maps")];
const rows = [...document.querySelectorAll(".rows")].flatMap((element, block) =>
  JSON.parse(element.textContent).map((cells, place) => {
    const [path, score, pValue, label, regions, image, overlay, mask, boxes, size, remark, text, reference, truth, part, verdict, digest] = cells;
    return {
      path, score: score ?? Infinity, pValue, label: label === 1, regions, image, overlay, mask, boxes, size, remark, text,
      reference, truth, part, verdict, digest, block, place, key: [path, part].join(" ").normalize().toLowerCase(),
    };
  }));
rows.sort((a, b) => a.score === b.score ? 0 : b.score - a.score); // stable: equal scores stay as in the table
rows.forEach((row, place) => { row.rank = place + 1; });
const partRanks = new Map([...rows].reverse().filter((row) => row.part).map((row) => [row.part, row.rank])); // of its first picture
nameApart();

const ownThreshold = decided ? runThreshold : null; // null: there are no verdicts, or each image has its own threshold
let threshold = ownThreshold;
const [lowest, highest] = range();
const decimals = Math.max(0, Math.min(8, 3 - Math.round(Math.log10(highest - lowest))));
const count = (value) => value.toLocaleString("en");

let shown = rows; // the rows that search and selection leave
let current = 0; // the place in `shown` that has the focus or is open

function range() {
  let low = Infinity, high = -Infinity;
  for (const score of [...decided || !rows.length ? [runThreshold] : [], ...rows.map((row) => row.score)]) {
    if (score !== null && score !== Infinity) [low, high] = [Math.min(low, score), Math.max(high, score)];
  }
  if (low > high) low = high = runThreshold ?? 0.5;
  const margin = (high - low) * 0.02 || 0.5;
  const isShare = low >= 0 && high <= 1; // no room is needed where no score can be
  return isShare ? [Math.max(0, low - margin), Math.min(1, high + margin)] : [low - margin, high + margin];
}

// The end of a path that no other image has: two parts, or more.
function nameApart() {
  const parts = (row) => row.path.split(/(?<=[\\/])/);
  let alike = rows;
  for (let depth = 2; alike.length; depth += 1) {
    const times = new Map();
    for (const row of alike) {
      const split = parts(row);
      row.name = split.slice(-depth);
      row.whole = split.length <= depth;
      times.set(row.name.join(""), (times.get(row.name.join("")) || 0) + 1);
    }
    alike = alike.filter((row) => times.get(row.name.join("")) > 1 && !row.whole);
  }
}

// A number as it is written, with as many decimals as it takes to read otherwise than another that it differs from.
function apart(value, others) {
  let places = decimals;
  while (places < 17 && others.some((other) => other !== value && other.toFixed(places) === value.toFixed(places))) places += 1;
  return value.toFixed(places);
}

function scoreText(score) {
  if (audit) return "";
  if (score === Infinity) return "no number";
  return apart(score, threshold === null ? [] : [threshold]);
}

function thresholdText() {
  const above = rows.findLast((row) => row.score > threshold), below = rows.find((row) => row.score < threshold);
  return apart(threshold, [above, below].filter(Boolean).map((row) => row.score).filter(Number.isFinite));
}

// A verdict is that of the run at the run's threshold, and a comparison elsewhere. A tick says what the image truly is,
// so that it stays true when the threshold moves: "right" may become "wrong". There is none where neither has decided.
const judged = () => decided || threshold !== null;
const isDefective = (row) => judged() && (decided && threshold === runThreshold ? row.label : row.score > threshold);
const word = (defective) => defective ? "defective" : "good";
// Of three verdicts, that of the run holds at its own threshold alone.
const hasThree = rows.some((row) => row.verdict !== null);
const verdictOf = (row) => !judged() ? "" : row.verdict && threshold === runThreshold ? row.verdict : word(isDefective(row));
const truthOf = (row) => marks.get(row.path)?.truth || "";
const isKnown = rows.some((row) => row.truth !== null);
const isMistaken = (row) => judged() && row.truth !== null && row.truth !== isDefective(row);
const asksVerdict = () => judged() && !hasThree; // whether "look" is right, nobody can say
const ANSWERS = () => asksVerdict() ? ["right", "wrong"] : ["defect", "no defect"];
const answered = (row, answer) => word(asksVerdict() ? isDefective(row) === (answer === "right") : answer === "defect");
const tickOf = (row) => ANSWERS().find((answer) => truthOf(row) === answered(row, answer)) || "";

// Ticks are kept by the browser, for this file.
const store = `anomalib-clipad ticks: ${location.pathname}`;
let marks = readTicks();

// Of an image: what it truly is, if that was said, boxes around what was missed, and those of regions that are none.
function mark(row) {
  return marks.get(row.path) || {truth: "", missed: [], alarms: []};
}

function readTicks() {
  try {
    const read = JSON.parse(localStorage.getItem(store) || "[]");
    return new Map(read.map(([path, kept]) => [path, typeof kept === "string" ? {truth: kept, missed: [], alarms: []} : kept]));
  } catch {
    return new Map();
  }
}

function keepTicks() {
  try {
    localStorage.setItem(store, JSON.stringify([...marks]));
    return true;
  } catch {
    return false;
  }
}

let kept = true;

function setMark(row, changed) {
  const now = {...mark(row), ...changed};
  if (now.truth || now.missed.length || now.alarms.length) marks.set(row.path, now);
  else marks.delete(row.path);
  kept = keepTicks();
  if (!viewer.open) select();
  paint();
}

const tick = (row, answer) => setMark(row, {truth: tickOf(row) === answer ? "" : answered(row, answer)});

const same = (box) => (other) => box.every((edge, place) => edge === other[place]);
const without = (boxes, box) => boxes.filter((other) => !same(box)(other));

function toggleAlarm(row, box) {
  const {alarms} = mark(row);
  setMark(row, {alarms: alarms.some(same(box)) ? without(alarms, box) : [...alarms, box]});
}

// The histogram is drawn once; the threshold only moves the edge between its two colours.
function drawHistogram() {
  const bins = new Array(80).fill(0);
  for (const {score} of rows) if (score !== Infinity) bins[Math.min(bins.length - 1, Math.floor(along(score) / 1000 * bins.length))] += 1;
  const most = Math.max(1, ...bins), width = 1000 / bins.length;
  const bars = bins.map((size, place) => {
    const height = size ? Math.max(3, 100 * Math.sqrt(size / most)) : 0;
    return `M${place * width} 100v${-height}h${width * 0.86}v${height}z`;
  }).join("");
  for (const path of get("histogram").querySelectorAll("path")) path.setAttribute("d", bars);
  moveLine(".run", ownThreshold);
  get("lowest").textContent = lowest.toFixed(decimals);
  get("highest").textContent = highest.toFixed(decimals);
}

const along = (score) => 1000 * (score - lowest) / (highest - lowest);

function moveLine(which, score) {
  const line = get("histogram").querySelector(which);
  line.style.display = score === null ? "none" : "";
  if (score === null) return;
  line.setAttribute("x1", along(score));
  line.setAttribute("x2", along(score));
}

function moveTo(value) {
  if (value === null && !decided) get("show").value = "all"; // there are no verdicts to choose by
  threshold = value === null ? null : Math.min(highest, Math.max(lowest, value));
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
    defective: (row) => verdictOf(row) === "defective",
    look: (row) => verdictOf(row) === "look",
    good: (row) => verdictOf(row) === "good",
    open: (row) => !marks.has(row.path),
    wrong: (row) => tickOf(row) === "wrong",
    mistaken: isMistaken,
  }[get("show").value];
  shown = rows.filter((row) => wanted(row) && words.every((part) => row.key.includes(part)));
  if (get("order").value === "part") {
    const rank = (row) => partRanks.get(row.part) ?? rows.length + 1;
    shown.sort((a, b) => rank(a) - rank(b) || a.rank - b.rank);
  }
  current = Math.max(0, Math.min(current, shown.length - 1));
}

function summary(defective) {
  const images = `${count(rows.length)} ${rows.length === 1 ? "image" : "images"}`;
  if (audit) return [`${images}, drawn at random`];
  if (!judged()) return [`${images}, the most suspicious first`];
  const marked = document.createElement("b");
  const times = (verdict) => count(rows.filter((row) => verdictOf(row) === verdict).length);
  const three = hasThree && threshold === runThreshold;
  marked.textContent = `${three ? times("defective") : count(defective)} defective`;
  const missed = rows.filter((row) => isMistaken(row) && row.truth).length;
  const alarms = rows.filter((row) => isMistaken(row) && !row.truth).length;
  const by = threshold === null ? ", by the threshold of each" : ` at ${thresholdText()}${ownThreshold === null ? ", your threshold" : ""}`;
  return [marked, `${three ? `, ${times("look")} to look at, ${times("good")} good` : ""} of ${images}${by}`
    + (isKnown ? `; by the truth ${count(missed)} missed, ${count(alarms)} false ${alarms === 1 ? "alarm" : "alarms"}` : "")];
}

function paint() {
  const defective = rows.filter(isDefective).length, [first, second] = ANSWERS();
  const answers = rows.map(tickOf).filter(Boolean), seconds = answers.filter((answer) => answer === second).length;
  const ticked = rows.filter((row) => marks.has(row.path)).length;
  get("summary").replaceChildren(...summary(defective));
  get("ticked").textContent = ticked
    ? `${count(ticked)} ticked: ${count(answers.length - seconds)} ${first}, ${count(seconds)} ${second}`
      + (kept ? "" : ". This browser does not keep ticks: download them")
    : "Nothing ticked yet";
  if (audit && answers.length < rows.length) get("ticked").append(`; ${count(rows.length - answers.length)} still to tick`);
  get("download").disabled = !ticked;
  get("found").textContent = shown.length === rows.length ? "" : `${count(shown.length)} shown`;
  get("nothing").hidden = shown.length > 0;
  for (const option of get("show").options) {
    option.hidden = option.disabled = ["defective", "look", "good", "wrong", "mistaken"].includes(option.value) && !judged()
      || option.value === "look" && !hasThree || option.value === "wrong" && !asksVerdict()
      || option.value === "mistaken" && !isKnown;
  }
  for (const [name, text] of [["first", first], ["second", second]]) {
    for (const element of document.querySelectorAll(`.${name}`)) element.textContent = text[0].toUpperCase() + text.slice(1);
  }
  get("question").textContent = asksVerdict() ? "Is this verdict right?" : "Does this image show a defect?";
  const edge = get("above").firstElementChild, place = threshold !== null ? along(threshold) : 1000;
  edge.setAttribute("x", place);
  edge.setAttribute("width", 1000 - place);
  moveLine(".now", threshold);
  get("slider").value = place;
  get("slider").setAttribute("aria-valuetext", threshold !== null ? `${thresholdText()}, ${count(defective)} defective` : "no threshold");
  if (document.activeElement !== get("threshold")) get("threshold").value = threshold !== null ? thresholdText() : "";
  get("reset").disabled = threshold === ownThreshold;
  drawTiles();
  if (viewer.open) drawFacts();
}

// The grid: only what is near the window exists.
const grid = get("grid");
const tiles = new Map(); // row -> element
const hasEyes = rows.some((row) => row.text !== null || row.reference !== null);
const HEIGHT = 250 + (hasEyes ? 18 : 0) + (partRanks.size ? 18 : 0), NARROWEST = 186;
const TALLEST = 15e6; // pixels; browsers allow an element no more than about 17 million

const columns = () => Math.max(1, Math.floor(grid.clientWidth / NARROWEST));

// Where more rows of tiles are than the grid may be tall, a step of the scroll bar goes further than its pixels.
function scrolling() {
  const total = Math.ceil(shown.length / columns()) * HEIGHT, tall = Math.min(total, TALLEST);
  return {tall, stretch: total > tall ? (total - innerHeight) / (tall - innerHeight) : 1};
}

function drawTiles() {
  const across = columns(), width = grid.clientWidth / across, {tall, stretch} = scrolling();
  grid.style.height = `${tall}px`;
  const scrolled = scrollY - grid.offsetTop, top = scrolled * stretch;
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
    const down = Math.floor(place / across) * HEIGHT - (stretch === 1 ? 0 : top - scrolled);
    const kept = Math.max(0, Math.min(tall - HEIGHT, down)); // the one with the focus may be far from what is seen
    tile.style.transform = `translate(${place % across * width}px, ${kept}px)`;
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
  const line = make("span", button, "line");
  make("span", line, "score");
  make("span", line, "verdict");
  const fact = make("span", button, "fact");
  make("span", fact, "rank").textContent = `#${count(row.rank)}`;
  if (row.pValue !== null) make("span", fact, "p-value").textContent = `p ${row.pValue.toPrecision(3)}`;
  if (hasEyes) make("span", button, "fact eyes").textContent = eyes(row, "ref.").join(" \u00b7 ");
  if (partRanks.size) make("span", button, "fact part").textContent = row.part ?? "";
  const file = make("span", button, "file");
  const [, folder, name] = row.name.join("").match(/^(.*?)([\\/]?[^\\/]*[\\/]?)$/s);
  make("span", file, "folder").textContent = folder;
  make("span", file, "").textContent = name;
  make("span", button, "tick");
  make("span", button, "flag");
  button.title = row.path;
  button.addEventListener("click", () => open(shown.indexOf(row)));
  button.addEventListener("focus", () => { current = shown.indexOf(row); later(); });
  return tile;
}

const eyes = (row, references = "references") => [["text", row.text], [references, row.reference]]
  .filter(([, score]) => score !== null).map(([name, score]) => `${name} ${score.toFixed(decimals)}`);

function label(tile, row, place) {
  const verdict = verdictOf(row), answer = tickOf(row), button = tile.firstElementChild;
  const {missed, alarms} = mark(row);
  const flag = isMistaken(row) ? (row.truth ? "missed" : "false alarm") : row.remark ? "remark" : "";
  const said = answer || (missed.length || alarms.length ? "marked" : "");
  tile.className = `tile ${verdict}`;
  button.tabIndex = place === current ? 0 : -1;
  button.setAttribute("aria-label", [row.path, `rank ${row.rank}`, !audit && `score ${scoreText(row.score)}`, verdict,
    row.pValue !== null && `p-value ${row.pValue.toPrecision(3)}`, said && `ticked ${said}`, flag].filter(Boolean).join(", "));
  button.querySelector(".score").textContent = scoreText(row.score);
  button.querySelector(".verdict").textContent = verdict;
  button.querySelector(".flag").textContent = flag;
  button.title = [row.path, row.part && `part ${row.part}`, row.remark].filter(Boolean).join("\n");
  const source = heatShown && heatMap(row) || thumbnail(row) || row.image, image = button.querySelector("img");
  if (source && image.getAttribute("src") !== source) image.src = source;
  const sign = button.querySelector(".tick");
  sign.textContent = said;
  sign.className = `tick ${asksVerdict() && answer ? answer : "marked"}`;
}

// Small pictures stay text in the page until one of their block is seen.
const lines = {}, heatLines = {};
const thumbnail = (row) => small(row, pictures, lines);
const heatMap = (row) => small(row, heats, heatLines);
let heatShown = false;

function small(row, elements, read) {
  if (read[row.block] === undefined) {
    read[row.block] = elements[row.block].textContent.split("\n");
    elements[row.block] = undefined;
  }
  const data = read[row.block][row.place];
  return data ? `data:image/jpeg;base64,${data}` : undefined;
}

function showHeat() {
  if (get("heat").hidden) return;
  heatShown = !heatShown;
  get("heat").setAttribute("aria-pressed", heatShown);
  drawTiles();
}

function focus(place) {
  if (!shown.length) return;
  current = Math.max(0, Math.min(place, shown.length - 1));
  const {stretch} = scrolling(), top = grid.offsetTop + Math.floor(current / columns()) * HEIGHT / stretch;
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
  show("overlay", row.overlay, `Heat map of ${row.path}`, heatMap(row));
  get("mask").closest("figure").hidden = row.mask === null;
  if (row.mask !== null) show("mask", row.mask, `Mask of ${row.path}`);
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
  const row = shown[current], verdict = verdictOf(row), answer = tickOf(row);
  const bold = document.createElement("b");
  bold.textContent = verdict || `#${count(row.rank)}`;
  const facts = audit ? [] : [`score ${scoreText(row.score)}`];
  if (row.pValue !== null) facts.push(`p-value ${row.pValue.toPrecision(3)}`);
  facts.push(...eyes(row));
  if (!audit) facts.push(`${count(row.regions)} ${row.regions === 1 ? "region" : "regions"}`);
  if (verdict) facts.push(`#${count(row.rank)}`);
  get("facts").replaceChildren(bold, ...facts.map((fact) => ` \u00b7 ${fact}`));
  get("facts").className = verdict;
  get("facts").title = [...document.querySelectorAll(".meaning p")].map((line) => line.textContent).join("\n");
  get("remark").textContent = [row.part && `Part ${row.part}`, row.remark].filter(Boolean).join("; ");
  get("explained").textContent = explanation(row);
  [get("right"), get("wrong")].forEach((button, place) => button.setAttribute("aria-pressed", ANSWERS()[place] === answer));
  drawMarks(row);
}

function explanation(row) {
  const said = [];
  if (row.truth !== null) said.push(`In truth it ${row.truth ? "shows a defect" : "is good"}.`);
  if (hasThree && verdictOf(row) === "look") {
    said.push("To look at: neither rare enough among normal images to be defective nor among known defects to be good, or both.");
  } else if (judged() && isDefective(row) && !row.regions) {
    said.push("Defective without a region: the score of the image is above its threshold, but no part of the map that is as "
      + "large as the smallest region that counts is above the map's, which is a threshold of its own.");
  } else if (judged() && !isDefective(row) && row.regions) {
    said.push("Good with regions: a part of the map is above the map's threshold, but the score of the image, which has a "
      + "threshold of its own, is not.");
  }
  if (threshold !== ownThreshold) said.push("Regions are those of the run: they do not follow this threshold.");
  else if (!decided && row.regions) said.push("Regions are where the map is above its midpoint, which was not calibrated either.");
  return said.join(" ");
}

// Boxes on the image, in its pixels: of regions, of which a click says that they are false alarms, and of what was missed.
const canvas = get("marks");

function sizeOf(row) {
  if (row.size) return row.size;
  const image = get("image");
  return row.image !== null && image.onerror && image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : null;
}

function drawMarks(row) {
  const size = sizeOf(row), {missed, alarms} = mark(row);
  canvas.toggleAttribute("hidden", !size);
  get("hint").textContent = size ? "(drag around what was missed" + (row.boxes.length ? "; click a region that is none)" : ")") : "";
  if (size) canvas.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  canvas.replaceChildren(
    ...row.boxes.map((box, place) => rectangle(box, `region${alarms.some(same(box)) ? " alarm" : ""}`, place)),
    ...missed.map((box) => rectangle(box, "missed", -1)),
  );
  const focused = [...get("listed").children].indexOf(document.activeElement);
  get("listed").replaceChildren();
  row.boxes.forEach((box, place) => {
    const button = listed(`Region ${place + 1} is a false alarm`, () => toggleAlarm(row, box));
    button.setAttribute("aria-pressed", alarms.some(same(box)));
  });
  for (const box of missed) listed(`Remove missed ${box.join(" ")}`, () => setMark(row, {missed: without(mark(row).missed, box)}));
  if (focused >= 0) (get("listed").children[focused] || get("listed").lastElementChild || get("name")).focus();
}

function listed(text, act) {
  const button = make("button", get("listed"), "");
  button.type = "button";
  button.textContent = text;
  button.addEventListener("click", act);
  return button;
}

function rectangle(box, className, place) {
  const element = document.createElementNS(canvas.namespaceURI, "rect");
  ["x", "y", "width", "height"].forEach((name, edge) => element.setAttribute(name, box[edge]));
  element.setAttribute("class", className);
  if (place >= 0) element.dataset.place = place;
  return element;
}

// A point of the window in pixels of the image.
function pixelAt(event, [width, height]) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(canvas.getScreenCTM().inverse());
  return [Math.max(0, Math.min(width, point.x)), Math.max(0, Math.min(height, point.y))];
}

function between([left, top], [right, bottom]) {
  const x = Math.floor(Math.min(left, right)), y = Math.floor(Math.min(top, bottom));
  return [x, y, Math.ceil(Math.max(left, right)) - x, Math.ceil(Math.max(top, bottom)) - y];
}

let drag = null;

canvas.addEventListener("pointerdown", (event) => {
  const row = shown[current], size = sizeOf(row);
  if (event.button !== 0 || !size) return;
  drag = {row, size, place: event.target.dataset.place, from: pixelAt(event, size), x: event.clientX, y: event.clientY, box: null};
  canvas.setPointerCapture(event.pointerId);
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  if (!drag || !drag.box && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 4) return;
  drag.box = between(drag.from, pixelAt(event, drag.size));
  canvas.querySelector(".new")?.remove();
  canvas.append(rectangle(drag.box, "missed new", -1));
});
canvas.addEventListener("pointerup", () => {
  if (!drag) return;
  const {row, box, place} = drag, {truth, missed} = mark(row);
  drag = null;
  if (box && box[2] && box[3]) setMark(row, {truth: truth || "defective", missed: [...without(missed, box), box]});
  else if (place !== undefined) toggleAlarm(row, row.boxes[place]);
  else drawMarks(row);
});
canvas.addEventListener("pointercancel", () => { drag = null; drawFacts(); });
get("image").addEventListener("load", () => { if (viewer.open) drawMarks(shown[current]); });

const step = (by) => { if (shown[current + by]) open(current + by); };

get("previous").addEventListener("click", () => step(-1));
get("next").addEventListener("click", () => step(1));
get("close").addEventListener("click", () => viewer.close());
get("right").addEventListener("click", () => tick(shown[current], ANSWERS()[0]));
get("wrong").addEventListener("click", () => tick(shown[current], ANSWERS()[1]));
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
viewer.addEventListener("close", () => {
  const row = shown[current];
  select(); // ticks may have taken rows out of the selection
  if (shown.includes(row)) current = shown.indexOf(row);
  paint();
  focus(current);
});

// Keys.
const PLACES = {1: 0, 2: 1};

document.addEventListener("keydown", (event) => {
  const {key, target} = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select")) return;
  const moves = viewer.open ? {ArrowLeft: -1, ArrowRight: 1}
    : {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -Infinity, End: Infinity};
  const inside = viewer.open || grid.contains(target);
  if (inside && key in moves) viewer.open ? step(moves[key]) : focus(current + moves[key]);
  else if (inside && key in PLACES && shown.length) answer(ANSWERS()[PLACES[key]]);
  else if (!viewer.open && key === "/") get("search").focus();
  else if (!viewer.open && key.toLowerCase() === "t") focus(shown.findLastIndex(isDefective));
  else if (!viewer.open && key.toLowerCase() === "h") showHeat();
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
  const boxes = (several) => several.map((box) => box.join(" ")).join("; ");
  const table = [["path", "score", "p_value", "threshold", "label", "tick", "truth", "missed", "false_regions"]];
  if (audit) table[0].push("digest", "audit");
  for (const row of rows) {
    if (!marks.has(row.path) && !audit) continue; // of an audit, what is not ticked counts too
    const {truth, missed, alarms} = mark(row), score = audit ? "" : row.score === Infinity ? "nan" : row.score;
    const verdict = judged() ? [threshold, verdictOf(row), asksVerdict() ? tickOf(row) : ""] : ["", "", ""];
    table.push([row.path, score, row.pValue, ...verdict, truth, boxes(missed), boxes(alarms), ...audit ? [row.digest, audit] : []]);
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
get("reset").addEventListener("click", () => moveTo(ownThreshold));
get("heat").addEventListener("click", showHeat);
get("search").addEventListener("input", () => { current = 0; scrollTo(0, 0); later(); });
get("order").addEventListener("change", () => { current = 0; scrollTo(0, 0); later(); });
get("show").addEventListener("change", () => { current = 0; scrollTo(0, 0); later(); });
addEventListener("scroll", () => requestAnimationFrame(drawTiles), {passive: true});
new ResizeObserver(() => drawTiles()).observe(grid);
addEventListener("storage", (event) => {
  if (event.key !== store) return;
  marks = readTicks();
  later();
});

get("decision").textContent = decision;
get("notes").hidden = !notes.length;
for (const note of notes) make("li", get("notes"), "").textContent = note;
if (audit) {
  for (const element of document.querySelectorAll(".scores, .meaning, label:has(#threshold), #reset")) element.hidden = true;
  grid.setAttribute("aria-label", "Images, in the order in which they were drawn");
}
get("ordering").hidden = !partRanks.size;
get("heat").hidden = !heats.some((element) => element.textContent.trim());
const bare = pictures.filter((element) => !element.textContent).length;
if (bare && bare < pictures.length) {
  get("limits").hidden = false;
  get("limits").textContent = "A page with small pictures of all these images would be too large to open: tiles of the later "
    + "part of the table show the files of the images, which takes longer, and have no heat maps.";
}
drawHistogram();
paint();
requestAnimationFrame(() => performance.mark("tiles"));
