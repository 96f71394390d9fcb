// Keys, mouse, and the start of the page.
import { actions, answered, asking } from "./decisions.js";
import { discard, keep, leave, paint, save, undo } from "./drawing.js";
import { $, listed, now, say } from "./now.js";
import { redraw, turnBy } from "./pictures.js";
import { api, guarded } from "./program.js";
import { choose, list, maps, side, turnPage } from "./side.js";
import { statistics } from "./statistics.js";
import { inSlicer, show } from "./visit.js";

const KEYS = { a: ["accept", "Accept the chosen disc, or all"], x: ["exclude", "Exclude, with a reason"], r: ["rename", "Rename the chosen disc"],
  e: ["edit", "Edit the chosen disc's outline"], u: ["back", "Take the decision back"], c: ["compare", "Compare with before the review, and who decided"],
  n: ["next", "Next participant"], p: ["previous", "Previous participant"] };

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !now.state) return;
  if (event.key === "Escape" && asking()) return answered(null);
  if (["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range" || $("keys").open) return;
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, depth = now.group ? now.group.volume : now.shown?.volumes.image;
  const run = work => { event.preventDefault(); work(); };
  if (now.edit && "szdx[]".includes(key)) return run({ s: save, z: undo, x: discard, d: () => $("erase").click(), "[": () => $("radius").stepDown(), "]": () => $("radius").stepUp() }[key]);
  if (now.edit && key === "Escape") return run(leave);
  if (key === "ArrowLeft" || key === "ArrowRight") return run(() => { now.slice = Math.max(0, Math.min(now.slice + (key === "ArrowLeft" ? -1 : 1), depth.shape[2] - 1)); redraw(); });
  if (key === "?") return run(() => $("keys").showModal());
  if (key === "m") return run(() => now.group ? show(now.person) : statistics());
  if (key === "v" && now.state.views) return run(() => $("slicer").click());
  if (key === "f") return run(() => $("flagged").click());
  if (now.group || !now.shown) return;
  if (!now.edit && (key === "ArrowDown" || key === "ArrowUp")) return run(() => choose(now.disc + (key === "ArrowDown" ? 1 : -1)));
  if (KEYS[key] && !(now.edit && key !== "e") && !$(KEYS[key][0]).disabled) run(actions[KEYS[key][0]]);
});

for (const [key, [name]] of Object.entries(KEYS)) $(name).onclick = () => actions[name]();
$("keyList").replaceChildren(...[...Object.entries(KEYS).map(([k, [, text]]) => [k, text]), ["\u2191 \u2193", "Choose a disc, or all"], ["\u2190 \u2192", "Slice"],
  ["f", "Flagged participants only"], ["m", "Statistical maps"], ["v", "Slicer's own views, where they are installed"], ["s z x d [ ]", "While editing: save, undo, discard, erase, radius"]].flatMap(([k, text]) =>
  [Object.assign(document.createElement("dt"), { textContent: k }), Object.assign(document.createElement("dd"), { textContent: text })]));
$("help").onclick = () => $("keys").showModal();
$("closeKeys").onclick = () => $("keys").close();
$("slicer").onclick = () => {   // opened at once: browsers hold back a window that comes later
  now.views = open("", "slicer-views");
  return inSlicer();
};
$("maps").onclick = () => now.group ? show(now.person) : statistics();
$("people").onclick = event => { const button = event.target.closest("button"); if (button) show(button.dataset.id); };
$("before").onclick = () => turnPage(-1);
$("after").onclick = () => turnPage(1);
$("find").oninput = list;
$("find").onkeydown = event => { if (event.key === "Enter" && listed().length) show(listed()[0].id).then(() => $("main").focus()); };
$("flagged").onchange = () => { list(); const people = listed(); if (people.length && !people.some(p => p.id === now.person)) show(people[0].id); };
$("mapChoice").onchange = event => { now.mapKey = event.target.value; maps(); redraw(); $("main").focus(); };
$("statChoice").onchange = event => { statistics(event.target.value); $("main").focus(); };
$("threshold").oninput = event => { now.group.threshold = Number(event.target.value); $("thresholdText").textContent = `\u00b1${(now.group.threshold * now.group.volume.high).toPrecision(3)}`; redraw(); };
$("ask").onsubmit = event => { event.preventDefault(); answered($("answer").value); };
$("askCancel").onclick = () => answered(null);
$("erase").onclick = () => { now.edit.erase = !now.edit.erase; $("erase").setAttribute("aria-pressed", String(now.edit.erase)); };
$("undo").onclick = undo;
$("save").onclick = save;
$("leave").onclick = leave;
$("discard").onclick = discard;
$("main").oncontextmenu = event => event.preventDefault();
$("main").onpointerdown = event => {
  if (!now.edit) return;
  now.edit.strokes.push([]);
  $("main").setPointerCapture(event.pointerId);
  const erase = now.edit.erase || event.shiftKey || event.button === 2;
  paint(event, erase);
  $("main").onpointermove = move => paint(move, erase);
};
$("main").onpointerup = () => { if ($("main").onpointermove) { $("main").onpointermove = null; keep(); } };
$("main").onwheel = event => {
  const depth = (now.group ? now.group.volume : now.shown?.volumes.image)?.shape[2] || 1;
  now.slice = Math.max(0, Math.min(now.slice + Math.sign(event.deltaY), depth - 1));
  redraw();
};
$("solid").onpointerdown = event => {
  $("solid").setPointerCapture(event.pointerId);
  $("solid").onpointermove = move => { turnBy(move.movementX, move.movementY); };
};
$("solid").onpointerup = () => { $("solid").onpointermove = null; };
new ResizeObserver(redraw).observe($("views"));

setInterval(async () => {   // a run that begins makes the review read only, its end ends that
  const found = now.state && now.person && await api("/api/lock").catch(() => null);
  if (!found || found.readOnly === now.state.readOnly) return;
  now.state.readOnly = found.readOnly;
  say("");
  if (!now.group) side();
}, 2000);

guarded(async () => {
  now.state = await api("/api/state");
  $("title").textContent = now.state.title;
  $("simulated").hidden = !now.state.simulated;
  $("slicer").hidden = !now.state.views;
  const [id, level] = decodeURIComponent(location.hash.slice(1)).split("/");
  const first = now.state.people.find(p => p.id === id) || now.state.people.find(p => !p.done) || now.state.people[0];
  await show(first.id, first.id === id ? level : "");
});
