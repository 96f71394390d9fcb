// How a volume is drawn: colors, sagittal slices with outlines, surface points of discs. No state.

// ---------------------------------------------------------------- colors and slices

const VIRIDIS = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];
const DIVERGING = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];
const DISCS = ["#009eff", "#ffb000"];  // alternating, told apart with every color vision

export function table(name) {
  const stops = { viridis: VIRIDIS, diverging: DIVERGING }[name] || [[0, 0, 0], [255, 255, 255]];
  const lut = new Uint8Array(768);
  for (let n = 0; n < 256; n++) {
    const at = n / 255 * (stops.length - 1), low = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) lut[3 * n + c] = stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]);
  }
  return lut;
}

export const isDisc = v => v >= 11 && v <= 28;
export const colorOf = v => DISCS[v % 2];

export function middle(v) {
  const [nk, nj, ni] = v.shape, count = new Uint32Array(ni);
  for (let at = 0; at < v.labels.length; at++) if (isDisc(v.labels[at])) count[at % ni]++;
  const best = count.indexOf(Math.max(...count));
  return count[best] ? best : ni >> 1;
}

export function box(v) {
  const [nk, nj, ni] = v.shape;
  let [k0, k1, j0, j1] = [nk, -1, nj, -1];
  for (let at = 0; at < v.labels.length; at++) {
    if (!isDisc(v.labels[at])) continue;
    const k = Math.floor(at / (nj * ni)), j = Math.floor(at / ni) % nj;
    k0 = Math.min(k0, k); k1 = Math.max(k1, k); j0 = Math.min(j0, j); j1 = Math.max(j1, j);
  }
  return k1 < 0 ? [0, nk - 1, 0, nj - 1] : [Math.max(k0 - 4, 0), Math.min(k1 + 4, nk - 1), Math.max(j0 - 4, 0), Math.min(j1 + 4, nj - 1)];
}

export function fit(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, w, h);
  return context;
}

// Draws one sagittal slice: head up, front of the body to the left.
export function draw(canvas, v, i, { crop = null, outlines = [], inside = false, threshold = 0, chosen = 0 } = {}) {
  const context = fit(canvas);
  if (!v || !canvas.width || !canvas.height) return null;
  const [nk, nj, ni] = v.shape, [k0, k1, j0, j1] = crop || [0, nk - 1, 0, nj - 1];
  const rows = k1 - k0 + 1, columns = j1 - j0 + 1, pixels = new ImageData(columns, rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const at = ((k1 - r) * nj + j0 + c) * ni + i, value = v.image[at], to = 4 * (r * columns + c);
      const hidden = value === 0 || (threshold && Math.abs(value - 128) / 127 < threshold);
      const off = hidden || (inside && !isDisc(v.labels[at]));
      for (let n = 0; n < 3; n++) pixels.data[to + n] = off ? (inside && value ? value * 0.35 : 18) : v.lut[3 * value + n];
      pixels.data[to + 3] = 255;
    }
  }
  const small = new OffscreenCanvas(columns, rows);
  small.getContext("2d").putImageData(pixels, 0, 0);
  const [dk, dj] = v.spacing, scale = Math.min(canvas.width / (columns * dj), canvas.height / (rows * dk));
  const [w, h] = [columns * dj * scale, rows * dk * scale], [x0, y0] = [(canvas.width - w) / 2, (canvas.height - h) / 2];
  context.imageSmoothingEnabled = !inside && !threshold;
  context.drawImage(small, x0, y0, w, h);
  const view = { x0, y0, px: dj * scale, py: dk * scale, k1, j0, i, v };
  for (const [labels, dashed] of outlines) stroke(context, view, labels, rows, columns, dashed, chosen);
  return view;
}

function stroke(context, view, labels, rows, columns, dashed, chosen) {
  const { x0, y0, px, py, k1, j0, i, v } = view, [nk, nj, ni] = v.shape, paths = new Map();
  const get = (r, c) => r < 0 || c < 0 || r >= rows || c >= columns ? 0 : labels[((k1 - r) * nj + j0 + c) * ni + i];
  const line = (value, ...p) => {
    if (!paths.has(value)) paths.set(value, new Path2D());
    paths.get(value).moveTo(p[0], p[1]);
    paths.get(value).lineTo(p[2], p[3]);
  };
  for (let r = 0; r <= rows; r++) for (let c = 0; c <= columns; c++) {
    const here = get(r, c), up = get(r - 1, c), left = get(r, c - 1), x = x0 + c * px, y = y0 + r * py;
    if (here !== up) for (const value of [here, up]) if (isDisc(value)) line(value, x, y, x + px, y);
    if (here !== left) for (const value of [here, left]) if (isDisc(value)) line(value, x, y, x, y + py);
  }
  for (const [value, path] of paths) {
    context.setLineDash(dashed ? [3, 4] : []);
    context.lineWidth = (value === chosen ? 2.6 : 1.5) * (window.devicePixelRatio || 1);
    context.strokeStyle = dashed ? "#ffffff" : colorOf(value);
    context.stroke(path);
  }
  context.setLineDash([]);
}

// ---------------------------------------------------------------- discs in three dimensions: shaded surface points

export function surface(v) {
  const [nk, nj, ni] = v.shape, [dk, dj, di] = v.spacing, steps = [1, -1, ni, -ni, ni * nj, -ni * nj], found = [];
  const mm = [[di, 0, 0], [-di, 0, 0], [0, dj, 0], [0, -dj, 0], [0, 0, dk], [0, 0, -dk]];
  for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++) for (let i = 0; i < ni; i++) {
    const at = (k * nj + j) * ni + i, value = v.labels[at];
    if (!isDisc(value)) continue;
    const n = [0, 0, 0];
    const edge = [i + 1 >= ni, i < 1, j + 1 >= nj, j < 1, k + 1 >= nk, k < 1];
    for (let s = 0; s < 6; s++) if (edge[s] || v.labels[at + steps[s]] !== value) for (let c = 0; c < 3; c++) n[c] += mm[s][c] / (mm[s][0] ** 2 + mm[s][1] ** 2 + mm[s][2] ** 2);
    const length = Math.hypot(...n);
    if (length) found.push([i * di, j * dj, k * dk, n[0] / length, n[1] / length, n[2] / length, value]);
  }
  const center = [0, 1, 2].map(c => found.reduce((sum, p) => sum + p[c], 0) / (found.length || 1));
  for (const p of found) for (let c = 0; c < 3; c++) p[c] -= center[c];
  const radius = found.reduce((most, p) => Math.max(most, Math.hypot(p[0], p[1], p[2])), 1);
  return { points: found, radius, step: Math.max(di, dj, dk) };
}
