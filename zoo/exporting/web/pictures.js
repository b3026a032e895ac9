// Files of images as samples that a model takes, as zoo/pictures/ reads them: upright, without a change of colours, grey
// as one channel. And images of another size, as zoo/pictures/resizing.py makes them.

import { Unsuited } from "./geometry.js";

const accepted = "accepted: PNG or JPEG of 8 bits a sample";
const text = (bytes, from, length) => String.fromCharCode(...bytes.subarray(from, from + length));
const word = (bytes, at) => bytes[at] << 8 | bytes[at + 1];
const long = (bytes, at) => word(bytes, at) * 65536 + word(bytes, at + 2);

// Height and width that a file states, as far as they are laid down; what browsers would change or fill up is refused.
function checkPng(bytes) {
  for (let at = 8; at + 12 <= bytes.length; at += 12 + long(bytes, at)) {
    const kind = text(bytes, at + 4, 4);
    if (kind === "IHDR" && bytes[at + 16] === 16) throw new Unsuited(`is a PNG of 16 bits a sample; ${accepted}`);
    if (kind === "IEND") return [long(bytes, 20), long(bytes, 16)];
  }
  throw new Unsuited("is broken or truncated");
}
function checkJpeg(bytes) {
  let size = null;
  for (let at = 2; at + 4 <= bytes.length;) {
    if (bytes[at] !== 0xff) break;
    const marker = bytes[at + 1];
    if (marker === 0xff) { at += 1; continue; }
    if (marker === 0xda) {
      let end = bytes.length - 2;
      while (end > at && !(bytes[end] === 0xff && bytes[end + 1] === 0xd9)) end--;
      if (size && end > at) return size;
      break;
    }
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      if (bytes[at + 4] !== 8 || ![1, 3].includes(bytes[at + 9])) {
        throw new Unsuited(`is a JPEG of ${bytes[at + 9]} channels of ${bytes[at + 4]} bits; ${accepted}, grey or RGB`);
      }
      size = [word(bytes, at + 5), word(bytes, at + 7)];
    }
    at += 2 + word(bytes, at + 2);
  }
  throw new Unsuited("is broken or truncated");
}

// A file as a canvas that holds its samples as they are, and no more.
export async function decode(file, about) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const isPng = text(bytes, 0, 8) === "\x89PNG\r\n\x1a\n", isJpeg = text(bytes, 0, 3) === "\xff\xd8\xff";
  if (!isPng && !isJpeg) throw new Unsuited(`is neither PNG nor JPEG; ${accepted}; others are scanned by \`zoo scan\``);
  const [height, width] = isPng ? checkPng(bytes) : checkJpeg(bytes);
  if (height * width > about.mostPixels || Math.max(height, width) > about.mostSide) {
    throw new Unsuited(`has ${height} x ${width} pixels; accepted: up to ${about.mostPixels.toLocaleString("en")}, ` +
      `${about.mostSide.toLocaleString("en")} a side; larger ones are scanned by \`zoo scan\``);
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Unsuited("is broken or truncated");
  }
  const canvas = newCanvas(bitmap.height, bitmap.width);
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas;
}

export function newCanvas(height, width) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

// The samples of a canvas, (height, width, channels).
export function samplesOf(canvas, channels) {
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  const samples = new Uint8Array(width * height * channels);
  for (let i = 0, o = 0; i < rgba.length; i += 4) {
    if (rgba[i + 3] !== 255) {
      throw new Unsuited("has transparent pixels, whose colours a canvas does not keep; accepted: an opaque image");
    }
    if (channels === 1 && (rgba[i] !== rgba[i + 1] || rgba[i] !== rgba[i + 2])) {
      throw new Unsuited("has 3 channels in colour; accepted: 1, a grey image");
    }
    for (let c = 0; c < channels; c++) samples[o++] = rgba[i + c];
  }
  return samples;
}

// Pillow's bilinear weights along an axis: for every pixel made, the first of the source's that goes into it, and what
// each weighs.
function filterOf(side, made) {
  const ratio = side / made, support = Math.max(ratio, 1);
  return Array.from({ length: made }, (_, i) => {
    const centre = (i + 0.5) * ratio;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), side);
    const weights = Array.from({ length: last - first },
      (_, tap) => Math.max(1 - Math.abs((first + tap - centre + 0.5) * (1 / support)), 0));
    const whole = weights.reduce((sum, each) => sum + each, 0);
    return { first, weights: weights.map((each) => each / whole) };
  });
}

// Samples (height, width, channels) at another size, not rounded to whole numbers: along the rows, and then down.
export function resized(samples, [height, width], [rows, columns], channels) {
  if (height === rows && width === columns) return samples;
  const across = width === columns ? null : filterOf(width, columns);
  const narrow = across ? new Float32Array(height * columns * channels) : samples;
  if (across) {
    for (let y = 0, o = 0; y < height; y++) {
      for (const { first, weights } of across) {
        for (let c = 0; c < channels; c++) {
          let sum = 0, at = (y * width + first) * channels + c;
          for (const weight of weights) { sum += samples[at] * weight; at += channels; }
          narrow[o++] = sum;
        }
      }
    }
  }
  if (height === rows) return narrow;
  const line = columns * channels, made = new Float32Array(rows * line);
  filterOf(height, rows).forEach(({ first, weights }, row) => {
    for (let i = 0; i < line; i++) {
      let sum = 0, at = first * line + i;
      for (const weight of weights) { sum += narrow[at] * weight; at += line; }
      made[row * line + i] = sum;
    }
  });
  return made;
}
