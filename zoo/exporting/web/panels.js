// What the page says beside the map: the cell that is chosen and what it looks at, legend, and objects.

import { none } from "./scores.js";
import { rgb } from "./view.js";

const $ = (id) => document.getElementById(id);
// Classes that are shown as bars, and in the legend, and objects in the list.
const mostBars = 10, mostShares = 40, mostListed = 500;
// Pixels of the screen that a crop is drawn with at least, so that what lies outside of the image can be hatched.
const crossed = 320;

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}
function swatch(about, index) {
  const box = make("span", { className: "swatch" });
  box.style.backgroundColor = rgb(about.colours[index]);
  box.dataset.pattern = about.patterns[index];
  return box;
}
// Rows of a table: [class's index or null, text, value].
function table(about, rows) {
  return make("table", {}, ...rows.map(([index, name, value]) => make("tr", {},
    make("td", {}, ...(index === null ? [] : [swatch(about, index)]), name), make("td", {}, value))));
}

// The cell that is chosen: where it is, what it looks at, and its scores. `answer` as in view.js.
export function showCell(about, answer, chosen, picture) {
  $("look").hidden = !chosen;
  if (!chosen) {
    $("bars").replaceChildren();
    return $("read").replaceChildren("Choose a cell by a click, or with the arrows.");
  }
  const { grid, winners, probabilities } = answer, [row, column] = chosen, cell = row * grid.shape[1] + column;
  const [top, left, bottom, right] = grid.cropOf(chosen);
  const rows = [[null, "row, column", `${row}, ${column}`],
    [null, "crop, pixel rows", `${top}:${bottom}`], [null, "crop, pixel columns", `${left}:${right}`]];
  if (about.findObjects) {
    const index = winners[cell];
    rows.push(index === none ? [null, "class", "none"] : [index, "class", about.classNames[index]]);
  }
  $("read").replaceChildren(table(about, rows));
  showWindow([top, left, bottom, right], picture);
  showBars(about, probabilities(cell));
}

// The pixels of a crop, enlarged, and hatched where they lie outside of the image.
function showWindow([top, left, bottom, right], picture) {
  const [height, width] = [bottom - top, right - left], by = Math.max(Math.ceil(crossed / Math.max(height, width)), 1);
  const canvas = $("window"), pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [width * by, height * by];
  pen.strokeStyle = "#888";
  pen.lineWidth = 2;
  for (let x = -canvas.height; x < canvas.width; x += 12) {
    pen.beginPath();
    pen.moveTo(x, canvas.height);
    pen.lineTo(x + canvas.height, 0);
    pen.stroke();
  }
  pen.imageSmoothingEnabled = false;
  pen.drawImage(picture, -left * by, -top * by, picture.width * by, picture.height * by);
  const within = (from, to, side) => Math.max(Math.min(to, side) - Math.max(from, 0), 0);
  const inside = within(top, bottom, picture.height) * within(left, right, picture.width), all = height * width;
  $("look-text").textContent = `What the cell looks at: ${height} x ${width} pixels` +
    (inside < all ? `, of which ${all - inside} lie outside of the image (hatched)` : "");
}

function showBars(about, probable) {
  const order = [...probable.keys()].sort((a, b) => probable[b] - probable[a]).slice(0, mostBars);
  // In the order of the classes, where all have room.
  if (probable.length <= mostBars) order.sort((a, b) => a - b);
  $("bars").replaceChildren(make("table", { ariaLabel: "Scores by class" }, ...order.map((index) => {
    const bar = make("span", { className: "bar" });
    bar.style.width = `${100 * Math.min(Math.max(probable[index], 0), 1)}%`;
    bar.style.background = rgb(about.colours[index]);
    bar.hidden = probable[index] < 0.00005;
    return make("tr", {}, make("td", { title: about.classNames[index] }, swatch(about, index),
      about.classNames[index]), make("td", {}, bar),
      make("td", {}, probable[index].toFixed(4)));
  })));
}

// Of the winners the share of the image that each class has; of one class its colour.
export function showLegend(about, answer, shown) {
  if (!answer) return $("legend").replaceChildren();
  if (shown >= 0) {
    const ramp = make("div", { id: "ramp" });
    ramp.style.background = `linear-gradient(to right, transparent, ${rgb(about.colours[shown])})`;
    const ends = make("div", { className: "ends" }, ...["0", "probability", "1"].map((text) => make("span", {}, text)));
    return $("legend").replaceChildren(table(about, [[shown, about.classNames[shown], ""]]), ramp, ends);
  }
  const all = answer.shares.reduce((sum, [, count]) => sum + count, 0);
  const share = (count) => `${(100 * count / all).toFixed(1)} %`;
  const classes = answer.shares.filter(([index]) => index !== none), rest = classes.slice(mostShares);
  const rows = classes.slice(0, mostShares).map(([index, count]) =>
    [index, about.classNames[index], share(count)]);
  if (rest.length) rows.push([null, `${rest.length} more`, share(rest.reduce((sum, [, count]) => sum + count, 0))]);
  const left = answer.shares.find(([index]) => index === none);
  if (left) rows.push([null, "none", share(left[1])]);
  $("legend").replaceChildren(table(about, rows));
}

// A row for each class that objects may have: a box that shows or hides them, and their number; and all their places.
export function showObjects(about, answer, hidden, changed, go) {
  $("found").hidden = !answer?.objects;
  if (!answer?.objects) return;
  const rows = about.objects.map((index) => {
    const box = make("input", { type: "checkbox", checked: !hidden.has(index) });
    box.addEventListener("input", () => {
      if (box.checked) hidden.delete(index); else hidden.add(index);
      changed();
    });
    const count = answer.objects.filter((each) => each.index === index).length;
    return make("tr", {}, make("td", {}, make("label", {}, box, swatch(about, index), about.classNames[index])),
      make("td", {}, String(count)));
  });
  $("counts").replaceChildren(make("table", {}, ...rows));
  const listed = answer.objects.slice(0, mostListed).map((object) => {
    const name = make("button", { type: "button" }, about.classNames[object.index]);
    name.addEventListener("click", () => go(object.cell));
    return make("tr", {}, make("td", {}, name), ...[object.score.toFixed(4), object.x.toFixed(1), object.y.toFixed(1)]
      .map((text) => make("td", {}, text)));
  });
  const head = make("tr", {}, ...["class", "score", "x", "y"].map((text) => make("th", { scope: "col" }, text)));
  $("list").hidden = !listed.length;
  $("list").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...listed)));
  if (answer.objects.length > mostListed) {
    $("list").append(`Of ${answer.objects.length} objects the ${mostListed} of the highest scores are listed.`);
  }
}
