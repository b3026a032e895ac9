// Where the cells of a grid lie in an image, and how the grid is cut into tiles, by the moves that travel in zoo.json:
// as zoo/network/moves.py, program.py and geometry.py, and zoo/scanning/tiles.py, memory.py and scales.py have it.

const bytesOfNumber = 4;
// What kernels take for patches and reordered copies, what a tile may take, and the largest tile.
const workspace = 1.6, memoryOfTile = 2 ** 29, largestTile = 1024;
// What an image that is not cut may take: WebAssembly has 4 GiB.
const memoryOfWhole = 2 ** 31;
const mostScale = 64;

const gcd = (a, b) => b ? gcd(b, a % b) : a;
const lcm = (numbers) => numbers.reduce((all, each) => all / gcd(all, each) * each, 1);
const extentOf = (move) => (move.kernel - 1) * move.dilation + 1;

function paddingOf(move, size) {
  if (move.causal) return [extentOf(move) - 1, 0];
  if (!move.same) return [0, 0];
  const total = Math.max((Math.ceil(size / move.stride) - 1) * move.stride + extentOf(move) - size, 0);
  return [total >> 1, total - (total >> 1)];
}
const pads = (move) => move.move === "slide" ? (move.same || move.causal) && extentOf(move) > 1
  : move.move === "border" && (move.before > 0 || move.after > 0);

// Rows after a move; zero where it does not fit.
const sizes = {
  slide(move, [size]) {
    const [before, after] = paddingOf(move, size);
    return Math.max(Math.floor((size + before + after - extentOf(move)) / move.stride) + 1, 0);
  },
  border: (move, [size]) => Math.max(size + move.before + move.after, 0),
  repeat: (move, [size]) => size * move.times,
  pointwise: (move, all) => Math.max(...all),
  everywhere: () => 1,
};
const sizeAfter = (move, all) => sizes[move.move](move, all);
// The same, where inputs without positions are null and fit every size; zero where the inputs differ.
function fittingSize(move, all) {
  const known = new Set(all.filter((size) => size !== null));
  if (move.move === "everywhere" || !known.size) return known.size === 1 && known.has(0) ? 0 : null;
  return known.size === 1 && !known.has(0) ? sizeAfter(move, [...known]) : 0;
}

// Cell i of a map looks at pixels [start + i * stride, start + i * stride + extent); the map has `size` rows.
const spans = {
  slide(move, [first]) {
    const [before] = paddingOf(move, first.size), reach = (extentOf(move) - 1) * first.stride;
    return { start: first.start - before * first.stride, extent: first.extent + reach,
      stride: first.stride * move.stride };
  },
  border: (move, [first]) => ({ ...first, start: first.start - move.before * first.stride }),
  repeat: (move, [first]) => ({ ...first, stride: first.stride / move.times }),
  pointwise(move, all) {
    const start = Math.min(...all.map((span) => span.start));
    const end = Math.max(...all.map((span) => span.start + span.extent));
    return { start, extent: end - start, stride: Math.max(...all.map((span) => span.stride)) };
  },
  everywhere: (move, [first]) => ({ start: first.start, extent: Infinity, stride: 0 }),
};
const spanAfter = (move, all) =>
  ({ ...spans[move.move](move, all), size: sizeAfter(move, all.map((span) => span.size)) });
// The same, null for what a global pooling made, which has no place.
function placedSpan(move, all) {
  const known = all.filter((span) => span !== null);
  return known.length && move.move !== "everywhere" ? spanAfter(move, known) : null;
}
// The same, with room for where copies of a row truly lie.
function reachAfter(move, all) {
  const span = spanAfter(move, all), wider = move.move === "repeat" ? all[0].stride - span.stride : 0;
  return { ...span, start: span.start - wider, extent: span.extent + wider };
}

// A value carried along one axis to every tensor, by its key.
function carry(program, axis, start, combine) {
  const values = new Map([[program.image, start]]);
  for (const layer of program.layers) {
    values.set(layer.output, combine(layer.moves[axis], layer.inputs.map((key) => values.get(key))));
  }
  return values;
}
const imageSpan = (side) => ({ start: 0, extent: 1, stride: 1, size: side });
const sizesOf = (program, axis, side) => carry(program, axis, side, sizeAfter);
const spanOf = (program, axis, side) => carry(program, axis, imageSpan(side), spanAfter).get(program.grid);

// By how many pixels the branches that meet at each merge lie apart.
function alignment(program, axis, side) {
  const placed = carry(program, axis, imageSpan(side), placedSpan), apart = [];
  for (const layer of program.layers) {
    const starts = layer.inputs.map((key) => placed.get(key)).filter((span) => span !== null).map((span) => span.start);
    apart.push(...starts.slice(1).map((start) => start - starts[0]));
  }
  return apart.join();
}

// Where an axis may be cut; see zoo/scanning/tiles.py.
function cutsOf(program, axis, side) {
  const reaches = carry(program, axis, imageSpan(side), reachAfter);
  const padded = program.layers.filter((layer) => pads(layer.moves[axis])).flatMap((layer) => layer.inputs);
  const kept = [...new Set([...padded, program.image, program.grid])].map((key) => reaches.get(key));
  const all = [...reaches.values()];
  return {
    grid: reaches.get(program.grid),
    aligned: lcm(all.map((span) => span.stride)),
    latest: Math.max(...kept.map((span) => span.start)),
    earliest: Math.min(...kept.map((span) => span.start + (span.size - 1) * span.stride + span.extent)),
    spare: Math.min(...all.map((span) => (span.size - 1) * span.stride)),
  };
}
// What a tile of the cells from `first` to `last` takes of an axis: the pixels that it reads, and how many cells of its
// answer come before its own.
function partOf({ grid, aligned, latest, earliest, spare }, side, first, last) {
  const whole = (pixels) => Math.floor(Math.max(pixels, 0) / aligned) * aligned;
  const begin = grid.start + first * grid.stride, end = grid.start + (last - 1) * grid.stride + grid.extent;
  const before = whole(Math.min(begin - latest, spare));
  const after = whole(Math.min(earliest - end, spare - before));
  return { cells: [first, last], pixels: [before, side - after], inner: first - before / grid.stride };
}

// Python's round: halves to the even number.
const roundEven = (x) => Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
const rounded = (x) => roundEven(x * 1e6) / 1e6;

export class Unsuited extends Error {}

// What an image is scaled by, and what is to be said of that; `stated`: its pixel size in micrometres, or null.
export function scaleOf(card, stated) {
  if (card.pixel_size === null) {
    if (card.scale === null) return { scale: 1, note: "" };
    return { scale: card.scale, note: `The image is taken at scale ${card.scale}, as in training.` };
  }
  if (stated === null) {
    if (card.scale === null) {
      throw new Unsuited(`Give the image's pixel size: the model was trained at ${card.pixel_size} µm a pixel.`);
    }
    return { scale: card.scale, note: `No pixel size: the image is taken at scale ${card.scale}, as in training.` };
  }
  const scale = stated / card.pixel_size;
  if (!(scale >= 1 / mostScale && scale <= mostScale)) {
    throw new Unsuited(`A pixel size of ${stated} µm was given; accepted: up to ${mostScale} times more or less than ` +
      `${card.pixel_size} µm.`);
  }
  return { scale, note: `The image is taken at ${card.pixel_size} µm a pixel.` };
}

// The sides of the crop that a cell stands for, in pixels that the model sees; of any image, so that one is as good.
export const windowOf = ({ window, program }) => window ?? [0, 1].map((axis) => spanOf(program, axis, 4096).extent);

// Whether every layer takes an image of these sides, which are those that the model sees.
export const fits = ({ program }, size) => size.every((side, axis) =>
  ![...carry(program, axis, side, fittingSize).values()].includes(0));

// The sides that an image is brought to.
export const scaledSize = (size, scale) => size.map((side) => Math.max(roundEven(side * scale), 1));

// The grid of an image of `size`, [height, width], of which `scanned` are the sides that the model sees.
export class Grid {
  constructor(carried, size, scanned) {
    const { program, window, training_size: training, card } = carried;
    [this.program, this.size, this.scanned] = [program, size, scanned];
    this.numbers = carried.numbers_a_position;
    this.channels = carried.image.shape.at(-1);
    const axes = [0, 1];
    if (card.window !== null && axes.some((axis) => scanned[axis] < card.window[axis])) {
      throw new Unsuited(`The image has ${scanned.join(" x ")} pixels (height x width)` +
        `${this.#isScaled ? ", once it is scaled" : ""}; accepted: at least one window of ${card.window.join(" x ")}.`);
    }
    if (!fits(carried, scanned)) {
      throw new Unsuited(`The image has ${scanned.join(" x ")} pixels (height x width), which a layer does not take; ` +
        "accepted: a larger one.");
    }
    const seen = axes.map((axis) => spanOf(program, axis, scanned[axis]));
    this.stride = seen.map((span) => span.stride);
    this.reach = seen.map((span) => span.extent);
    this.window = window ?? this.reach;
    if (this.window.includes(Infinity)) throw new Unsuited("A cell of this model stands for the whole image.");
    this.bounded = !this.reach.includes(Infinity);
    this.shape = axes.map((axis) => sizesOf(program, axis, scanned[axis]).get(program.grid));
    this.cells = this.shape[0] * this.shape[1];
    this.keepsFunction = training === null ||
      axes.every((axis) => alignment(program, axis, scanned[axis]) === alignment(program, axis, training[axis]));
    // In pixels of the given image: where the windows begin, and how long they are, in whole ones; their middles; the
    // edges between the cells' own pixels.
    this.ratios = axes.map((axis) => size[axis] / scanned[axis]);
    this.scales = axes.map((axis) => scanned[axis] / size[axis]);
    this.sides = axes.map((axis) => Math.max(roundEven(this.window[axis] * this.ratios[axis]), 1));
    this.centres = axes.map((axis) => {
      const alone = window === null ? 0 : spanOf(program, axis, window[axis]).start;
      const first = seen[axis].start - (window === null ? 0 : alone);
      return Float64Array.from({ length: this.shape[axis] },
        (_, cell) => (first + this.stride[axis] * cell + this.window[axis] / 2) * this.ratios[axis]);
    });
    this.starts = this.centres.map((middles, axis) =>
      middles.map((middle) => Math.floor(rounded(middle - this.sides[axis] / 2) + 0.5)));
    this.edges = this.centres.map((middles, axis) => {
      const half = this.stride[axis] * this.ratios[axis] / 2;
      return Float64Array.from({ length: middles.length + 1 },
        (_, cell) => rounded(cell < middles.length ? middles[cell] - half : middles.at(-1) + half));
    });
  }

  get #isScaled() {
    return this.size.some((side, axis) => side !== this.scanned[axis]);
  }

  // The crop that a cell stands for: top, left, bottom, right, not clipped at the image.
  cropOf([row, column]) {
    const [top, left] = [this.starts[0][row], this.starts[1][column]];
    return [top, left, top + this.sides[0], left + this.sides[1]];
  }

  // The pixels that a cell colours, in the same order.
  ownOf([row, column]) {
    const [down, across] = this.edges;
    return [down[row], across[column], down[row + 1], across[column + 1]].map(Math.floor);
  }

  // The cell whose own pixels hold one; null where there is none.
  cellAt(pixels) {
    const cell = pixels.map((pixel, axis) => this.edges[axis].findLastIndex((edge) => Math.floor(edge) <= pixel));
    return cell.every((index, axis) => index >= 0 && index < this.shape[axis]) ? cell : null;
  }

  // Which rows, or columns, have the middle of their windows in the image.
  inside(axis) {
    return Array.from(this.centres[axis], (middle) => middle >= 0 && middle < this.size[axis]);
  }

  // How many pixels from the border on no window has its middle, where that is more than a stride; else 0.
  get outer() {
    const far = Math.max(...this.centres.flatMap((middles, axis) => [middles[0], this.size[axis] - middles.at(-1)]));
    return far > Math.max(...this.stride.map((side, axis) => side * this.ratios[axis])) ? far : 0;
  }

  // Bytes that the runtime takes for pixels of this size, at most.
  #need(height, width) {
    const { program } = this, [rows, columns] = [sizesOf(program, 0, height), sizesOf(program, 1, width)];
    const size = (key) => rows.get(key) * columns.get(key) * bytesOfNumber * this.numbers[key];
    const lastUse = new Map([[program.grid, Infinity]]);
    program.layers.forEach((layer, at) => [layer.output, ...layer.inputs].forEach((key) =>
      lastUse.set(key, Math.max(lastUse.get(key) ?? 0, at))));
    let living = size(program.image), peak = living;
    program.layers.forEach((layer, at) => {
      const made = size(layer.output);
      peak = Math.max(peak, living + 2 * made);
      const unused = new Set([layer.output, ...layer.inputs].filter((key) => lastUse.get(key) === at));
      living += made - [...unused].reduce((sum, key) => sum + size(key), 0);
    });
    return workspace * peak + 3 * bytesOfNumber * height * width * this.channels;
  }

  // The tiles of the grid, each with the cells that it answers for, the pixels that it reads, and where in its answer
  // its cells begin: the largest ones that the memory allows. The scores do not depend on them.
  tiles(most = largestTile) {
    const [height, width] = this.scanned;
    if (!this.bounded) {
      if (this.#need(height, width) > memoryOfWhole) {
        throw new Unsuited("A block inside this model pools over the whole image, which takes too much memory here.");
      }
      return [{ cells: [[0, this.shape[0]], [0, this.shape[1]]], pixels: [[0, height], [0, width]], inner: [0, 0] }];
    }
    const cuts = this.scanned.map((side, axis) => cutsOf(this.program, axis, side)), stride = Math.max(...this.stride);
    const parts = (axis, count) => Array.from({ length: Math.ceil(this.shape[axis] / count) }, (_, number) =>
      partOf(cuts[axis], this.scanned[axis], number * count, Math.min((number + 1) * count, this.shape[axis])));
    const ofTiles = (cells) => [0, 1].map((axis) => parts(axis, Math.max(Math.floor(cells * stride / this.stride[axis]), 1)));
    const fits = (cells) => {
      const longest = ofTiles(cells).map((all) => Math.max(...all.map(({ pixels: [from, to] }) => to - from)));
      return this.#need(...longest) <= memoryOfTile;
    };
    let [fewest, largest] = [0, Math.max(Math.floor(most / stride), 1)];
    while (fewest < largest) {
      const middle = (fewest + largest + 1) >> 1;
      if (fits(middle)) fewest = middle; else largest = middle - 1;
    }
    const [rows, columns] = ofTiles(Math.max(fewest, 1));
    return rows.flatMap((row) => columns.map((column) => ({ cells: [row.cells, column.cells],
      pixels: [row.pixels, column.pixels], inner: [row.inner, column.inner] })));
  }

  sentence() {
    const text = (sides) => sides.map((side) => Number(side.toPrecision(6))).join(" x ");
    const stride = `stride ${text(this.stride.map((side, axis) => side * this.ratios[axis]))}`;
    const window = `window ${text(this.window.map((side, axis) => side * this.ratios[axis]))} pixels`;
    if (this.#isScaled) return `${stride}, ${window}; the image was scaled by ${text(this.scales)}`;
    return `${stride}, ${window}, receptive field ${this.bounded ? `${text(this.reach)} pixels` : "the whole image"}`;
  }
}
