// The image with its score map on the stage: zoom, pan, frames, circles, and where the pointer is.

import { newCanvas } from "./pictures.js";
import { none } from "./scores.js";

const $ = (id) => document.getElementById(id);
export const rgb = (colour) => `rgb(${colour.map(Math.round)})`;
// Of each pattern of classes (see `pattern` in overlay.py) its lines, eight pixels of the screen apart, and the corners of
// marks with how far these are turned; a circle has none.
const onLine = [() => false, (x, y) => (x + y & 7) < 2, (x, y) => (x - y & 7) < 2, (x, y) => (y & 7) < 2,
  (x, y) => (x & 7) < 2, (x, y) => (x + y & 7) < 2 || (x - y & 7) < 2];
const corners = [[0, 0], [4, Math.PI / 4], [4, 0], [3, 0], [3, Math.PI], [5, 0]];
// What a pattern's lines are drawn with: a tile that repeats.
function tileOf(pattern) {
  const tile = newCanvas(8, 8), pen = tile.getContext("2d");
  for (let i = 0; i < 64; i++) if (onLine[pattern](i & 7, i >> 3)) pen.fillRect(i & 7, i >> 3, 1, 1);
  return tile;
}

export class View {
  // `about`: what page.json says. `shown` is a class's index, -1 of the winner.
  constructor(about) {
    this.about = about;
    this.canvas = $("map");
    this.context = this.canvas.getContext("2d");
    [this.left, this.top, this.zoom] = [0, 0, 1];  // the image's pixel at the top left; the canvas's pixels for each
    [this.picture, this.answer, this.chosen, this.pen] = [null, null, null, null];
    [this.shown, this.opacity, this.inColour, this.hidden] = [-1, about.opacity, about.findObjects, new Set()];
    this.asked = false;
  }

  // Show another image, a canvas, or the same one changed; the answer that is there stays until the next comes.
  show(picture, keepsPlace) {
    [this.picture, this.grey] = [picture, null];
    if (keepsPlace) return this.redraw();
    [this.answer, this.chosen] = [null, null];
    this.fit();
  }

  // Take an answer: grid, winners, strength, probability of the class that is shown (a function of cell and class),
  // objects or null.
  take(answer) {
    this.answer = answer;
    this.colourCells();
  }

  colourCells() {
    if (!this.answer) return this.redraw();
    const { patterns } = this.about, repeated = this.shown < 0 ? [...new Set(patterns)].filter(Boolean) : [];
    this.cells = this.#cellsOf(() => true);
    this.lined = repeated.map((pattern) => [tileOf(pattern), this.#cellsOf((index) => patterns[index] === pattern)]);
    this.redraw();
  }

  // A picture of the colours of the cells of some classes, a pixel each.
  #cellsOf(isWanted) {
    const { grid, winners, strength, probability } = this.answer, [rows, columns] = grid.shape;
    const cells = newCanvas(rows, columns), pen = cells.getContext("2d"), frame = pen.createImageData(columns, rows);
    for (let cell = 0; cell < rows * columns; cell++) {
      const index = this.shown < 0 ? winners[cell] : this.shown;
      if (index === none || !isWanted(index)) continue;
      const weight = this.shown < 0 ? strength[cell] : probability(cell, this.shown);
      frame.data.set([...this.about.colours[index].map(Math.round), Math.round(255 * weight)], 4 * cell);
    }
    pen.putImageData(frame, 0, 0);
    return cells;
  }

  // The image with the mean of its colours in their place.
  #below() {
    if (this.inColour || this.about.channels === 1) return this.picture;
    if (this.grey) return this.grey;
    const { width, height } = this.picture, frame = this.picture.getContext("2d").getImageData(0, 0, width, height);
    const { data } = frame;
    for (let i = 0; i < data.length; i += 4) data[i] = data[i + 1] = data[i + 2] = (data[i] + data[i + 1] + data[i + 2]) / 3;
    this.grey = newCanvas(height, width);
    this.grey.getContext("2d").putImageData(frame, 0, 0);
    return this.grey;
  }

  redraw() {
    if (!this.asked) requestAnimationFrame(() => { this.asked = false; this.#draw(); });
    this.asked = true;
  }

  #draw() {
    const { context, canvas, zoom } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.picture) return;
    context.setTransform(zoom, 0, 0, zoom, -this.left * zoom, -this.top * zoom);
    context.imageSmoothingEnabled = zoom < 1;
    context.drawImage(this.#below(), 0, 0);
    context.imageSmoothingEnabled = false;
    if (this.answer) this.#drawAnswer();
    if (this.pen) this.#drawPen();
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.#placeFrames();
    $("zoom").textContent = `${Number((100 * zoom).toPrecision(3))} %`;
  }

  #drawAnswer() {
    const { context, answer: { grid, objects } } = this, [down, across] = grid.edges;
    context.save();
    context.beginPath();
    context.rect(0, 0, this.picture.width, this.picture.height);
    context.clip();
    context.globalAlpha = this.opacity;
    // From the first cell's own pixels to the last one's, of which all are equally far apart.
    const [top, left] = [down[0], across[0]].map(Math.floor);
    const place = [left, top, across.at(-1) - across[0], down.at(-1) - down[0]];
    context.drawImage(this.cells, ...place);
    for (const [tile, cells] of this.lined) this.#drawLines(tile, cells, place);
    context.restore();
    if (!objects) return;
    const radius = Math.min(Math.max(Math.min(...grid.sides) * this.about.mark, 3 * devicePixelRatio / this.zoom),
      9 * devicePixelRatio / this.zoom);
    for (const { index, y, x } of [...objects].reverse()) {
      if (!this.hidden.has(index)) this.#circle(x, y, radius, rgb(this.about.colours[index]), this.about.patterns[index]);
    }
  }

  // Lines over some cells, as opaque as these are; they keep their places on the image, and their width on the screen.
  #drawLines(tile, cells, place) {
    const { canvas, context, zoom } = this, layer = newCanvas(canvas.height, canvas.width), pen = layer.getContext("2d");
    pen.setTransform(context.getTransform());
    pen.imageSmoothingEnabled = false;
    pen.drawImage(cells, ...place);
    pen.resetTransform();
    pen.globalCompositeOperation = "source-in";
    const lines = pen.createPattern(tile, "repeat"), wide = Math.max(Math.round(devicePixelRatio), 1);
    lines.setTransform(new DOMMatrix([wide, 0, 0, wide, -Math.round(this.left * zoom), -Math.round(this.top * zoom)]));
    pen.fillStyle = lines;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    context.save();
    context.resetTransform();
    context.drawImage(layer, 0, 0);
    context.restore();
  }

  // A circle, or another mark of a class's pattern.
  #circle(x, y, radius, colour, pattern = 0) {
    const { context } = this, [count, turned] = corners[pattern];
    context.beginPath();
    if (!count) context.arc(x, y, radius, 0, 2 * Math.PI);
    for (let i = 0; i < count; i++) {
      const angle = turned + 2 * Math.PI * i / count;
      context.lineTo(x + radius * Math.sin(angle), y - radius * Math.cos(angle));
    }
    context.closePath();
    for (const [style, wide] of [["#000", 5], [colour, 2.5]]) {
      context.strokeStyle = style;
      context.lineWidth = wide * devicePixelRatio / this.zoom;
      context.stroke();
    }
  }

  #drawPen() {
    this.#circle(this.pen.x, this.pen.y, this.pen.radius, "#fff");
  }

  #placeFrames() {
    const { answer, chosen } = this;
    for (const [id, box] of [["own", answer && chosen && answer.grid.ownOf(chosen)],
      ["crop", answer && chosen && answer.grid.cropOf(chosen)]]) {
      $(id).hidden = !box;
      if (!box) continue;
      const ratio = this.zoom / devicePixelRatio, [top, left, bottom, right] = box, { style } = $(id);
      style.left = `${(left - this.left) * ratio}px`;
      style.top = `${(top - this.top) * ratio}px`;
      style.width = `${Math.max((right - left) * ratio, 4)}px`;
      style.height = `${Math.max((bottom - top) * ratio, 4)}px`;
    }
  }

  zoomTo(wanted, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    if (!this.picture) return;
    const least = Math.min(this.canvas.width / this.picture.width, this.canvas.height / this.picture.height, 1) / 2;
    const next = Math.min(Math.max(wanted, least), 64);
    this.left += x / this.zoom - x / next;
    this.top += y / this.zoom - y / next;
    this.zoom = next;
    this.redraw();
  }

  fit() {
    if (!this.picture) return;
    const { canvas, picture } = this;
    this.zoom = Math.min(canvas.width / picture.width, canvas.height / picture.height);
    this.left = (picture.width - canvas.width / this.zoom) / 2;
    this.top = (picture.height - canvas.height / this.zoom) / 2;
    this.redraw();
  }

  move(down, across) {
    this.top += down;
    this.left += across;
    this.redraw();
  }

  // Where an event is, in pixels of the canvas, and of the image: [y, x].
  point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientY - box.top) * devicePixelRatio, (event.clientX - box.left) * devicePixelRatio];
  }
  pixelAt([y, x]) {
    return [this.top + y / this.zoom, this.left + x / this.zoom];
  }

  // Move so that the cell that is chosen lies in sight.
  reveal() {
    const [top, left, bottom, right] = this.answer.grid.ownOf(this.chosen);
    const [down, across] = [this.canvas.height / this.zoom, this.canvas.width / this.zoom];
    if (top < this.top || bottom > this.top + down) this.top = (top + bottom - down) / 2;
    if (left < this.left || right > this.left + across) this.left = (left + right - across) / 2;
    this.redraw();
  }

  resize() {
    // A canvas between two pixels of the screen would be blurred.
    const { canvas } = this, header = document.querySelector("header");
    header.style.height = "auto";
    header.style.height = `${Math.ceil(header.getBoundingClientRect().height)}px`;
    const { width, height } = $("stage").getBoundingClientRect(), before = [canvas.height, canvas.width];
    canvas.width = Math.max(Math.floor(width * devicePixelRatio), 1);
    canvas.height = Math.max(Math.floor(height * devicePixelRatio), 1);
    canvas.style.width = `${canvas.width / devicePixelRatio}px`;
    canvas.style.height = `${canvas.height / devicePixelRatio}px`;
    this.move((before[0] - canvas.height) / 2 / this.zoom, (before[1] - canvas.width) / 2 / this.zoom);
  }
}
