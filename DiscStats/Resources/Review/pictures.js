// What the canvases show.
import { $, now, valueOf } from "./now.js";
import { box, colorOf, draw, fit } from "./views.js";

const turn = { a: 0.5, b: 0.2 };

export function turnBy(x, y) {
  turn.a += x / 100;
  turn.b += y / 100;
  drawSolid();
}

function drawSolid() {
  const canvas = $("solid"), context = fit(canvas);
  if (!now.shown || now.group || !canvas.width || !canvas.height) return;
  const { points, radius, step } = now.shown.solid, [w, h] = [canvas.width, canvas.height], scale = 0.94 * Math.min(w, h) / 2 / radius;
  const pixels = context.createImageData(w, h), depth = new Float32Array(w * h).fill(-1e9);
  const [ca, sa, cb, sb] = [Math.cos(turn.a), Math.sin(turn.a), Math.cos(turn.b), Math.sin(turn.b)];
  const half = Math.max(1, Math.ceil(step * scale * 0.62)), chosen = now.disc >= 0 ? valueOf(now.disc) : 0;
  for (const [x, y, z, nx, ny, nz, value] of points) {
    const X = ca * x + sa * y, Y = -sa * x + ca * y, Z = cb * z + sb * Y, D = -(cb * Y - sb * z);
    const light = 0.35 + 0.65 * Math.max(0, -(cb * (-sa * nx + ca * ny) - sb * nz));
    const color = parseInt(colorOf(value).slice(1), 16), strong = !chosen || value === chosen ? 1 : 0.45;
    const cx = Math.round(w / 2 + X * scale), cy = Math.round(h / 2 - Z * scale);
    for (let py = Math.max(0, cy - half); py <= Math.min(h - 1, cy + half); py++) for (let px = Math.max(0, cx - half); px <= Math.min(w - 1, cx + half); px++) {
      const at = py * w + px;
      if (D <= depth[at]) continue;
      depth[at] = D;
      for (let c = 0; c < 3; c++) pixels.data[4 * at + c] = ((color >> (16 - 8 * c)) & 255) * light * strong;
      pixels.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(pixels, 0, 0);
}

export function redraw() {
  $("mainName").textContent = now.group ? "Map on the atlas" : "Outlines";
  if (now.group) {
    now.view = draw($("main"), now.group.volume, now.slice, { outlines: [[now.group.volume.labels, false]], threshold: now.group.threshold });
    $("where").textContent = `slice ${now.slice + 1} of ${now.group.volume.shape[2]}`;
    legend(now.group.volume);
    return;
  }
  if (!now.shown) return;
  const v = now.shown.volumes.image, chosen = now.disc >= 0 ? valueOf(now.disc) : 0, labels = now.edit ? now.edit.labels : v.labels;
  const outlines = now.compare ? [[now.shown.automatic, true], [labels, false]] : [[labels, false]];
  now.view = draw($("main"), v, now.slice, { outlines, chosen });
  $("where").textContent = `slice ${now.slice + 1} of ${v.shape[2]}${now.compare ? "; dashed: before the review" : ""}`;
  const share = (now.slice + 0.5) / v.shape[2], m = now.shown.volumes[now.mapKey], a = now.shown.volumes.atlas;
  const at = some => Math.min(some.shape[2] - 1, Math.floor(share * some.shape[2]));
  draw($("map"), m, m ? at(m) : 0, m && { crop: box(m), inside: true, outlines: [[m.labels, false]], chosen });
  draw($("atlas"), a, a ? at(a) : 0, a && { crop: box(a), outlines: [[a.labels, false]] });
  legend(m);
  drawSolid();
}

function legend(m) {
  $("legend").hidden = !m;
  if (!m) return;
  const [low, bar, high] = $("legend").children, digits = x => Number(x.toPrecision(3)).toString();
  low.textContent = digits(m.low);
  high.textContent = `${digits(m.high)} ${m.unit}`;
  const stops = [0, 64, 128, 192, 255].map(n => `rgb(${m.lut.subarray(3 * n, 3 * n + 3).join(",")})`);
  bar.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
}
