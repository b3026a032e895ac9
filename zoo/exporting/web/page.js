// The page: images come in, the worker scans them, and the answers are shown.

import { Grid, Unsuited, fits, scaleOf, scaledSize, windowOf } from "./geometry.js";
import { showCell, showLegend, showObjects } from "./panels.js";
import { decode, newCanvas, samplesOf } from "./pictures.js";
import { probabilitiesOf } from "./scores.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
// Windows that a blank canvas has down and across, fewer where they are large; a brush's part of a window.
const blankWindows = [4, 6], fewerWindows = [2, 3], largeWindow = 64, brushPart = 0.1;
const mostTried = 1024;
// Pixels of an image that is scanned at every stroke, and not only once one ends.
const mostWhileDrawing = 2 ** 18;
const ramp = "A colour is as opaque as its class is probable; a cell has none where the background wins, or its class is " +
  "below its threshold.";
const standing = "The winner's colour is as opaque as a cell stands out from the median cell, a class's as it is probable.";

const json = async (name) => (await fetch(new URL(name, import.meta.url))).json();
const [carried, about] = await Promise.all([json("zoo.json"), json("page.json")]);
about.channels = carried.image.shape.at(-1);
const { card } = carried, view = new View(about), worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
let picture = null, name = "", answer = null;  // a canvas with its name; what the worker said of it
let number = 0, running = 0, waiting = false;  // of requests; the worker's own one; whether the image changed since
let isReady = false, threads = 1, notes = [];

function say(text, failed = false) {
  $("status").textContent = text;
  $("status").classList.toggle("failed", failed);
}

// The image's pixel size in micrometres, as the user states it; null without.
const statedSize = () => $("size").value === "" ? null : Number($("size").value);

function scan() {
  if (!isReady || !picture) return;
  if (running) { waiting = true; return; }
  waiting = false;
  try {
    const { scale, note } = scaleOf(card, statedSize()), size = [picture.height, picture.width];
    // Which is refused before its samples are read.
    const grid = new Grid(carried, size, scaledSize(size, scale)), samples = samplesOf(picture, about.channels);
    running = ++number;
    notes = [note, grid.keepsFunction ? "" : "At this size branches after strided SAME layers meet displaced, unlike " +
      "at the training size: another function inside, not only at the border."].filter(Boolean);
    worker.postMessage({ kind: "scan", number, samples, size, scale }, [samples.buffer]);
  } catch (error) {
    refuse(error);
  }
}

function refuse(error) {
  if (!(error instanceof Unsuited)) throw error;
  say(/^[A-Z]/.test(error.message) ? error.message : `${name} ${error.message}.`, true);
  take(null);
}

function take(next) {
  answer = next;
  view.answer = next;
  if (next && view.chosen?.some((index, axis) => index >= next.grid.shape[axis])) view.chosen = null;
  if (!next) view.chosen = null;
  view.colourCells();
  showAll();
}
function showAll() {
  showCell(about, answer, view.chosen, picture);
  showLegend(about, answer, view.shown);
  showObjects(about, answer, view.hidden, () => view.redraw(), (cell) => choose(cell, true));
  showNotes();
}

worker.onmessage = ({ data }) => {
  if (data.kind === "open") {
    [isReady, threads] = [true, data.threads];
    say("");
    return scan();
  }
  if (data.kind === "progress") {
    [$("progress").hidden, $("progress").max, $("progress").value] = [false, data.all, data.done];
    return;
  }
  running = 0;
  $("progress").hidden = true;
  if (data.kind === "failed") {
    say(data.text, true);
    take(null);
    if (data.opening) return;
  } else if (data.number === number) {
    const { scores, winners, strength, objects, shares } = data, classes = about.classNames.length;
    const probabilities = (cell) => probabilitiesOf(scores, cell * classes, classes, about.outputs);
    say(`${name}: ${data.size.join(" x ")} pixels (height x width), scanned in ${data.seconds.toFixed(2)} s` +
      (data.tiles > 1 ? ` in ${data.tiles} tiles` : ""));
    take({ grid: new Grid(carried, data.size, data.scanned), scores, winners, strength, objects, shares, probabilities,
      probability: (cell, index) => probabilities(cell)[index] });
    // For scripts.
    document.dispatchEvent(new CustomEvent("scanned", { detail: { ...answer, picture, name } }));
  }
  if (waiting) scan();
};
worker.onerror = (event) => say(`The page's worker failed: ${event.message ?? "its files could not be read"}.`, true);

// Another image, as a canvas; `chosen`: the name of an example.
function show(next, called, example = "") {
  [picture, name] = [next, called];
  $("example").value = example;
  if (running) worker.postMessage({ kind: "stop", number: running });
  number += 1;  // so that an answer of the image before is not taken
  view.show(next, false);
  take(null);
  if (isReady) say(`${called}: scanning.`);
  scan();
}
async function open(file, example = "") {
  try {
    const canvas = await decode(file, about);
    $("draw").checked = false;
    draw();
    show(canvas, file.name, example);
  } catch (error) {
    name = file.name;
    refuse(error);
  }
}
async function openExample(file) {
  const content = await (await fetch(new URL(`examples/${file}`, import.meta.url))).blob();
  await open(new File([content], file, { type: content.type }), file);
}

// In pixels of an image that is drawn.
const drawnScale = () => scaleOf(card, statedSize() ?? card.pixel_size).scale;
const windowSides = () => windowOf(carried).map((side) => side / drawnScale());
function blank() {
  const sides = windowSides(), times = Math.max(...sides) > largeWindow ? fewerWindows : blankWindows;
  let size = sides.map((side, axis) => Math.round(side * times[axis]));
  // Some nets, whose branches meet, take sides of some remainder alone.
  for (let tried = 0; tried < mostTried && !fits(carried, scaledSize(size, drawnScale())); tried++) {
    size = size.map((side) => side + 1);
  }
  const canvas = newCanvas(...size);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  $("draw").checked = true;
  draw();
  show(canvas, "Blank canvas");
}

function choose(cell, reveals = false) {
  view.chosen = cell;
  showCell(about, answer, cell, picture);
  if (reveals) view.reveal(); else view.redraw();
}

function showNotes() {
  const { name: runtime, version, licence } = about.runtime, words = [];
  if (answer) {
    words.push(`${answer.grid.shape.join(" x ")} cells (rows x columns), ${answer.grid.sentence()}.`, ...notes,
      about.findObjects ? ramp : standing);
    if (about.findObjects && answer.grid.outer) {
      words.push(`No window has its middle in the outer ${answer.grid.outer} pixels, where no object is found.`);
    }
  }
  words.push(`${runtime} ${version} (${licence}), ${threads === 1 ? "one thread" : `${threads} threads`}; nothing leaves this ` +
    "browser. JPEG files may be decoded a little differently than by other programs.");
  if (about.verified) words.push(`When the file was made, outside of browsers: ${about.verified}.`);
  $("notes").textContent = words.join(" ");
}

// Drawing: strokes on the image itself, with a round brush.
let stroke = null;
const brush = () => Number($("brush").value);
function draw() {
  $("pen").hidden = !$("draw").checked;
  view.canvas.classList.toggle("drawing", $("draw").checked);
  if (!$("draw").checked) view.pen = null;
  view.resize();
}
function strokeTo(place) {
  const pen = picture.getContext("2d", { willReadFrequently: true }), [y, x] = place, [fromY, fromX] = stroke ?? place;
  pen.strokeStyle = $("erase").checked ? "#000" : $("ink").value;
  [pen.lineWidth, pen.lineCap] = [brush(), "round"];
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(x, y);
  pen.stroke();
  stroke = place;
  view.show(picture, true);
  if (picture.width * picture.height <= mostWhileDrawing) changed();
}
function changed() {
  name = name.endsWith("(changed)") || name === "Blank canvas" ? name : `${name} (changed)`;
  scan();
  if (view.chosen) showCell(about, answer, view.chosen, picture);
}

let held = null, pressed = null;
const { canvas } = view;
canvas.addEventListener("pointerdown", (event) => {
  if (!picture || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  if ($("draw").checked && !event.shiftKey) return strokeTo(view.pixelAt(view.point(event)));
  held = pressed = view.point(event);
});
canvas.addEventListener("pointermove", (event) => {
  const [y, x] = view.point(event);
  if ($("draw").checked && picture) {
    const [pixelY, pixelX] = view.pixelAt([y, x]);
    view.pen = { y: pixelY, x: pixelX, radius: brush() / 2 };
    view.redraw();
  }
  if (stroke) return strokeTo(view.pixelAt([y, x]));
  if (!held) return;
  view.move((held[0] - y) / view.zoom, (held[1] - x) / view.zoom);
  held = [y, x];
});
canvas.addEventListener("pointerup", (event) => {
  const [y, x] = view.point(event);
  if (stroke) {
    stroke = null;
    return changed();
  }
  // What moved further was a drag.
  if (pressed && answer && Math.hypot(y - pressed[0], x - pressed[1]) <= 4 * devicePixelRatio) {
    const pixels = view.pixelAt([y, x]), inside = pixels[0] >= 0 && pixels[0] < picture.height && pixels[1] >= 0 &&
      pixels[1] < picture.width;
    choose(inside ? answer.grid.cellAt(pixels) : null);
  }
  held = pressed = null;
});
canvas.addEventListener("pointercancel", () => { stroke = held = pressed = null; });
canvas.addEventListener("pointerleave", () => {
  view.pen = null;
  view.redraw();
});
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [y, x] = view.point(event);
  view.zoomTo(view.zoom * 2 ** (-Math.sign(event.deltaY) / 2), x, y);
}, { passive: false });
const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  const step = arrows[event.key];
  if (!step || event.ctrlKey || event.altKey || event.metaKey || !picture) return;
  event.preventDefault();
  if (event.shiftKey) return view.move(step[0] * canvas.height / view.zoom / 8, step[1] * canvas.width / view.zoom / 8);
  if (!answer) return;
  const { shape } = answer.grid, last = shape.map((side) => side - 1);
  const middle = answer.grid.cellAt(view.pixelAt([canvas.height / 2, canvas.width / 2])) ?? last.map((side) => side >> 1);
  const next = view.chosen ? view.chosen.map((index, axis) => index + step[axis]) : middle;
  choose(next.map((index, axis) => Math.min(Math.max(index, 0), last[axis])), true);
});
const keys = { "+": () => view.zoomTo(view.zoom * 2), "=": () => view.zoomTo(view.zoom * 2),
  "-": () => view.zoomTo(view.zoom / 2), 0: () => view.fit(), 1: () => view.zoomTo(1) };
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.target.matches("select, input:not([type=checkbox])")) return;
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in keys) keys[event.key]();
});
for (const [id, key] of [["in", "+"], ["out", "-"], ["fit", 0], ["one", 1]]) $(id).addEventListener("click", keys[key]);

$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("input", () => {
  const [file] = $("file").files;
  if (file) open(file);
  $("file").value = "";
});
$("example").addEventListener("input", () => $("example").value && openExample($("example").value));
$("blank").addEventListener("click", blank);
$("size").addEventListener("input", scan);
$("draw").addEventListener("input", draw);
$("brush").addEventListener("input", () => { $("brush-text").textContent = brush().toFixed(1); });
$("shown").addEventListener("input", () => {
  view.shown = Number($("shown").value);
  view.colourCells();
  showLegend(about, answer, view.shown);
});
function setOpacity() {
  view.opacity = Number($("opacity").value);
  $("opacity-text").textContent = view.opacity.toFixed(2);
  view.redraw();
}
$("opacity").addEventListener("input", setOpacity);
$("colour").addEventListener("input", () => {
  view.inColour = $("colour").checked;
  view.redraw();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").hidden = kind !== "dragover";
    const [file] = kind === "drop" ? event.dataTransfer.files : [];
    if (file) open(file);
  });
}
addEventListener("resize", () => view.resize());
// The header, whose height is set, has another row when one of its parts grows.
const parts = new ResizeObserver(() => view.resize());
for (const part of document.querySelectorAll("header *")) parts.observe(part);

document.title = $("model").textContent = carried.model;
for (const [index, called] of [[-1, "the winner"], ...about.classNames.entries()]) $("shown").add(new Option(called, index));
for (const [value, called] of [["", "none"], ...about.examples.map((file) => [file, file])]) {
  $("example").add(new Option(called, value));
}
$("with-examples").hidden = !about.examples.length;
$("with-size").hidden = card.pixel_size === null;
$("with-colour").hidden = about.channels === 1;
$("opacity").value = about.opacity;
$("colour").checked = about.findObjects;
$("colour").parentElement.hidden = about.channels === 1;
$("brush").max = Math.max(...windowSides()) / 2;
$("brush").value = Math.min(...windowSides()) * brushPart;
$("brush-text").textContent = brush().toFixed(1);
setOpacity();
draw();
worker.postMessage({ kind: "open", carried, about });
if (about.examples.length) await openExample(about.examples[0]); else blank();
document.body.dataset.ready = "yes";
