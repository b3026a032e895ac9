// What is read of scores, (cells, classes) row by row: classes, how far a cell stands out, and objects. As zoo/scores.py,
// zoo/objects/cell_classes.py and peaks.py, and zoo/scanning/usual_scores.py and overlay.py have it.

export const none = -1;  // the class of a cell that is of none
const sampled = 2 ** 20;  // numbers that the median cell is taken from
const before = [[-1, -1], [-1, 0], [-1, 1], [0, -1]], after = [[0, 1], [1, -1], [1, 0], [1, 1]];

// Of the cell whose scores begin at `first`: a softmax of logits, in float64; others are probabilities already.
export function probabilitiesOf(scores, first, classes, outputs) {
  const own = Float64Array.from(scores.subarray(first, first + classes));
  if (outputs !== "logits") return own;
  const most = own.reduce((a, b) => Math.max(a, b));
  let sum = 0;
  for (let i = 0; i < classes; i++) sum += own[i] = Math.exp(own[i] - most);
  return own.map((each) => each / sum);
}
function winnerOf(scores, first, classes) {
  let best = 0;
  for (let i = 1; i < classes; i++) if (scores[first + i] > scores[first + best]) best = i;
  return best;
}

// The median cell's scores, and how far from them a cell stands out.
function usualScores(scores, [rows, columns], classes) {
  const step = Math.max(Math.ceil(Math.sqrt(rows * columns * classes / sampled)), 1), cells = [];
  for (let row = 0; row < rows; row += step) {
    for (let column = 0; column < columns; column += step) cells.push((row * columns + column) * classes);
  }
  const middle = (sorted) => (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  const median = Float64Array.from({ length: classes },
    (_, i) => middle(Float64Array.from(cells, (first) => scores[first + i]).sort()));
  const far = Float64Array.from(cells, (first) => distanceFrom(median, scores, first)).sort();
  const at = (far.length - 1) * 0.95, low = Math.floor(at), high = Math.min(low + 1, far.length - 1);
  return { median, far: Math.max(far[low] + (far[high] - far[low]) * (at - low), far.at(-1) / 4) };
}
function distanceFrom(median, scores, first) {
  let sum = 0;
  for (let i = 0; i < median.length; i++) sum += (scores[first + i] - median[i]) ** 2;
  return Math.sqrt(sum);
}

// The class of every cell, and how opaque its colour is shown, 0 to 1. `about`: what page.json says.
export function classesOf(scores, shape, about) {
  const classes = about.classNames.length, cells = shape[0] * shape[1];
  const winners = new Int32Array(cells), strength = new Float32Array(cells);
  const usual = about.findObjects ? null : usualScores(scores, shape, classes);
  for (let cell = 0; cell < cells; cell++) {
    const first = cell * classes, winner = winners[cell] = winnerOf(scores, first, classes);
    if (usual) {
      const distance = distanceFrom(usual.median, scores, first);
      strength[cell] = usual.far > 0 ? Math.min(distance / usual.far, 1) : 1;
      continue;
    }
    const probable = probabilitiesOf(scores, first, classes, about.outputs)[winner], least = about.least[winner];
    if (least !== null && probable >= least) strength[cell] = probable; else winners[cell] = none;
  }
  return { winners, strength };
}

// The objects, by falling score: peaks of the classes' probabilities after non-maximum suppression.
export function objectsOf(scores, winners, grid, about, peaks) {
  const [rows, columns] = grid.shape, classes = about.classNames.length;
  const [down, across] = [0, 1].map((axis) => grid.inside(axis));
  const known = (row, column) => down[row] === true && across[column] === true;
  // Of a cell that counts for nothing, or lies beyond the grid, minus infinity.
  const cache = new Map();
  function of(row, column) {
    if (!known(row, column)) return null;
    const cell = row * columns + column;
    if (!cache.has(cell)) {
      const probable = probabilitiesOf(scores, cell * classes, classes, about.outputs);
      cache.set(cell, { probable, strength: unsaturated(probable, scores, cell * classes, about.outputs) });
    }
    return cache.get(cell);
  }
  const found = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const index = winners[row * columns + column];
      if (index === none || !known(row, column)) continue;
      const own = of(row, column).strength[index];
      const at = ([y, x]) => of(row + y, column + x)?.strength[index] ?? -Infinity;
      if (!before.every((step) => at(step) < own) || !after.every((step) => at(step) <= own)) continue;
      found.push({ index, strength: own, cell: [row, column], ...placeOf(row, column, index) });
    }
  }
  // The mean of the middles of nine windows, weighted by their probabilities.
  function placeOf(row, column, index) {
    const middle = (y, x) => [grid.centres[0][row + y], grid.centres[1][column + x]], own = middle(0, 0);
    let weight = of(row, column).probable[index], moved = [0, 0];
    for (const [y, x] of before) {
      const chances = [[y, x], [-y, -x]].map(([a, b]) => [of(row + a, column + b)?.probable[index], middle(a, b)]);
      if (chances.some(([chance]) => chance === undefined)) continue;
      for (const [chance, place] of chances) {
        weight += chance;
        moved = moved.map((sum, axis) => sum + chance * (place[axis] - own[axis]));
      }
    }
    const [toY, toX] = own.map((each, axis) => each + moved[axis] / weight);
    return { y: toY, x: toX };
  }
  found.sort((a, b) => b.strength - a.strength || a.cell[0] - b.cell[0] || a.cell[1] - b.cell[1] || a.index - b.index);
  return suppressed(found, grid, about, peaks);
}

// Probabilities, and where one is 1 to the last bit, 1 and how far its logit is from the next.
function unsaturated(probable, scores, first, outputs) {
  if (outputs !== "logits" || probable.length < 2 || !probable.includes(1)) return probable;
  const ordered = Float64Array.from(scores.subarray(first, first + probable.length)).sort();
  return probable.map((each) => each === 1 ? 1 + ordered.at(-1) - ordered.at(-2) : each);
}

// Those that lie a margin from the border, and their distance from all of their class that stay before them.
function suppressed(found, grid, about, peaks) {
  const kept = [], squares = new Map(), half = Math.min(...grid.window) / 2;
  for (const each of found) {
    const { distance, margin } = peaks[about.classNames[each.index]] ?? { distance: half, margin: 0 };
    const place = [each.y, each.x];
    const border = Math.min(...place.map((at, axis) => Math.min(at, grid.size[axis] - at) * grid.scales[axis]));
    if (border < margin) continue;
    if (distance > 0) {
      const side = Math.max(distance, 1), scaled = place.map((at, axis) => at * grid.scales[axis]);
      const [row, column] = scaled.map((at) => Math.floor(at / side));
      const key = (y, x) => `${each.index} ${y} ${x}`, near = [];
      for (const y of [-1, 0, 1]) for (const x of [-1, 0, 1]) near.push(...squares.get(key(row + y, column + x)) ?? []);
      if (near.some((other) => Math.hypot(scaled[0] - other[0], scaled[1] - other[1]) < distance)) continue;
      if (!squares.has(key(row, column))) squares.set(key(row, column), []);
      squares.get(key(row, column)).push(scaled);
    }
    kept.push({ index: each.index, score: Math.min(each.strength, 1), y: each.y, x: each.x, cell: each.cell });
  }
  return kept;
}

// How many cells are of each class, [[class, count], ...] with the most first, of those that shares are of.
export function sharesOf(winners, grid, about) {
  const counts = new Map(), [rows, columns] = grid.shape;
  const inside = [0, 1].map((axis) => about.findObjects ? grid.inside(axis) : Array(grid.shape[axis]).fill(true));
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const winner = winners[row * columns + column];
      if (inside[0][row] && inside[1][column]) counts.set(winner, (counts.get(winner) ?? 0) + 1);
    }
  }
  return [...counts].sort((a, b) => b[1] - a[1]);
}
