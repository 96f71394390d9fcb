// Painting and erasing; what is not saved stays a draft on disk.
import { $, entry, now, say, valueOf } from "./now.js";
import { redraw } from "./pictures.js";
import { api, guarded, prefetch } from "./program.js";
import { put, side } from "./side.js";
import { isDisc } from "./views.js";

export function startEdit() {
  if (now.disc < 0) return say("Choose a disc first (arrow down), then edit.", true);
  now.edit = { labels: now.shown.volumes.image.labels.slice(), changes: new Map(), strokes: [], value: valueOf(now.disc), erase: false };
  $("editing").hidden = false;
  $("actions").hidden = true;
  $("editName").textContent = entry().discs[now.disc].level;
  const draft = now.shown.draft?.voxels || [];
  for (let n = 0; n < draft.length; n += 2) change(draft[n], draft[n + 1]);
  redraw();
  if (draft.length) say("An unsaved drawing was found and restored: save it (s), or discard it (x).", true);
}

export function restore(draft) {
  const touched = draft.voxels.flatMap((v, n) => n % 2 ? [v] : [now.shown.volumes.image.labels[v]]).find(isDisc);
  now.disc = Math.max(0, entry().discs.findIndex(d => d.level === now.state.labels[touched]));
  startEdit();
  side();
}

function change(at, value) {
  now.edit.labels[at] = value;
  if (now.shown.volumes.image.labels[at] === value) now.edit.changes.delete(at);
  else now.edit.changes.set(at, value);
}

export function paint(event, erase) {
  const rect = $("main").getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  const c = ((event.clientX - rect.left) * ratio - now.view.x0) / now.view.px, r = ((event.clientY - rect.top) * ratio - now.view.y0) / now.view.py;
  const [nk, nj, ni] = now.view.v.shape, [dk, dj] = now.view.v.spacing, radius = Number($("radius").value);
  for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++) {
    const x = (j - now.view.j0 + 0.5 - c) * dj, y = (now.view.k1 - k + 0.5 - r) * dk;
    if (x * x + y * y > radius * radius) continue;
    const at = (k * nj + j) * ni + now.slice, old = now.edit.labels[at], value = erase ? 0 : now.edit.value;
    if (old === value || (erase ? old !== now.edit.value : isDisc(old))) continue;   // other discs stay
    now.edit.strokes.at(-1).push([at, old]);
    change(at, value);
  }
  redraw();
}

const flat = () => [...now.edit.changes].flat();
export const keep = () => api("/api/draft", { person: now.person, voxels: flat() }).catch(error => say(error.message));

export function undo() {
  for (const [at, old] of (now.edit.strokes.pop() || []).reverse()) change(at, old);
  redraw();
  return keep();
}

export async function save() {
  const id = now.person;
  await guarded(async () => {
    const saved = await api("/api/correct", { person: id, voxels: flat(), seen: entry().seen });
    close();
    now.shown = await prefetch(id, true);
    put(now.shown.person);
    document.body.dataset.decided = `${id} ${saved.corrected.join(" ")} corrected`;
    side();
    redraw();
  });
}

export function leave() {   // what was drawn stays a draft
  now.shown.draft = now.edit.changes.size ? { voxels: flat() } : null;
  close();
  redraw();
}

export async function discard() {
  now.shown.draft = null;
  close();
  redraw();
  await api("/api/draft", { person: now.person, voxels: [] }).catch(error => say(error.message));
}

function close() {
  now.edit = null;
  $("editing").hidden = true;
  $("actions").hidden = false;
}
