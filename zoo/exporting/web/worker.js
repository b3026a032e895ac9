// Scans images beside the page, so that it does not freeze: the ONNX file in ONNX Runtime's WebAssembly, tile by tile.

import * as runtime from "./runtime/ort.wasm.min.mjs";
import { Grid, Unsuited, scaledSize } from "./geometry.js";
import { resized } from "./pictures.js";
import { classesOf, objectsOf, sharesOf } from "./scores.js";

runtime.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
// Threads share memory, which only pages have that are isolated from other origins.
runtime.env.wasm.numThreads = self.crossOriginIsolated ? Math.max(navigator.hardwareConcurrency >> 1, 1) : 1;

let carried, about, session;
let stopped = 0;  // the last request that nobody waits for any more

async function open(message) {
  [carried, about] = [message.carried, message.about];
  const model = await (await fetch(new URL("model.onnx", import.meta.url))).arrayBuffer();
  session = await runtime.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  postMessage({ kind: "open", threads: runtime.env.wasm.numThreads });
}

async function scan({ number, samples, size, scale, tile }) {
  const started = performance.now(), scanned = scaledSize(size, scale), channels = carried.image.shape.at(-1);
  const grid = new Grid(carried, size, scanned), tiles = grid.tiles(tile), classes = about.classNames.length;
  const pixels = resized(samples, size, scanned, channels), scores = new Float32Array(grid.cells * classes);
  const output = carried.outputs[0].name;
  for (const [done, { cells: [[row, lastRow], [column, lastColumn]], pixels: [[top, bottom], [left, right]], inner }]
    of tiles.entries()) {
    const [height, width] = [bottom - top, right - left], part = new Float32Array(height * width * channels);
    for (let y = 0; y < height; y++) {
      const from = ((top + y) * scanned[1] + left) * channels;
      part.set(pixels.subarray(from, from + width * channels), y * width * channels);
    }
    const image = new runtime.Tensor("float32", part, [1, height, width, channels]);
    const made = (await session.run({ [carried.image.name]: image }))[output];
    const wide = made.dims[2] * classes, line = (lastColumn - column) * classes;
    for (let y = row; y < lastRow; y++) {
      const from = (inner[0] + y - row) * wide + inner[1] * classes;
      scores.set(made.data.subarray(from, from + line), (y * grid.shape[1] + column) * classes);
    }
    made.dispose();
    if (tiles.length === 1) continue;
    postMessage({ kind: "progress", number, done: done + 1, all: tiles.length });
    await new Promise((resume) => setTimeout(resume));  // messages come in
    if (number <= stopped) return postMessage({ kind: "stopped", number });
  }
  if (!scores.every(Number.isFinite)) throw new Unsuited("The model's scores are not finite for this image.");
  const { winners, strength } = classesOf(scores, grid.shape, about);
  const objects = about.findObjects ? objectsOf(scores, winners, grid, about, carried.card.peaks) : null;
  const shares = sharesOf(winners, grid, about), seconds = (performance.now() - started) / 1000;
  postMessage({ kind: "scanned", number, size, scanned, scores, winners, strength, objects, shares, seconds,
    tiles: tiles.length }, [scores.buffer, winners.buffer, strength.buffer]);
}

// One after the other: a session takes one image at a time.
let last = Promise.resolve();
onmessage = ({ data }) => {
  if (data.kind === "stop") { stopped = data.number; return; }
  last = last.then(() => data.kind === "open" ? open(data) : scan(data)).catch((error) => {
    postMessage({ kind: "failed", number: data.number, opening: data.kind === "open",
      text: error instanceof Unsuited ? error.message : `This browser could not run the model: ${error.message ?? error}` });
  });
};
