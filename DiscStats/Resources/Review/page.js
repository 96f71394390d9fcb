// The review page: who is next, what is seen, what is decided. All state that matters is on disk.
const $ = id => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") || "";
const cache = new Map();              // person -> promise of what is shown
let state = null, person = null, shown = null, disc = -1, slice = 0, compare = false, edit = null, group = null;
let turn = { a: 0.5, b: 0.2 }, mapKey = "", asked = null, busy = false;

// ---------------------------------------------------------------- talking to the program

async function api(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: body ? "POST" : "GET", headers: { "X-Token": token },
      body: body && JSON.stringify(body) });
  } catch {
    throw new Error("The program behind this page has ended. What was decided and drawn is kept: start it again.");
  }
  if (path.startsWith("/api/volume") && answer.ok) return new Uint8Array(await answer.arrayBuffer());
  if (answer.status === 403) throw new Error(await answer.text());
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function say(text, note = false) {
  $("message").textContent = text;
  $("message").hidden = !text;
  $("message").classList.toggle("note", note);
}

async function guarded(work) {
  if (busy) return;
  busy = true;
  try { say(""); await work(); } catch (error) { say(error.message); } finally { busy = false; }
}

async function load(id) {
  const heads = await api(`/api/person?id=${encodeURIComponent(id)}`);
  const names = Object.keys(heads.volumes);
  const data = await Promise.all(names.map(n => api(`/api/volume?id=${encodeURIComponent(id)}&name=${n}`)));
  const volumes = Object.fromEntries(names.map((n, at) => [n, volume(heads.volumes[n], data[at])]));
  const automatic = (volumes.automatic || volumes.image).labels;
  delete volumes.automatic;
  return { ...heads, volumes, automatic, solid: surface(volumes.image) };
}

function volume(head, bytes) {
  const size = head.shape[0] * head.shape[1] * head.shape[2];
  return { ...head, image: bytes.subarray(0, size), labels: bytes.slice(size), lut: table(head.colors) };
}

function prefetch(id, again = false) {
  if (again) cache.delete(id);
  if (!cache.has(id)) {
    const promise = load(id);
    cache.set(id, promise);
    promise.catch(() => cache.delete(id));
  }
  while (cache.size > 4) cache.delete(cache.keys().next().value);
  return cache.get(id);
}

// ---------------------------------------------------------------- what is on screen

function drawSolid() {
  const canvas = $("solid"), context = fit(canvas);
  if (!shown || group || !canvas.width || !canvas.height) return;
  const { points, size, step } = shown.solid, [w, h] = [canvas.width, canvas.height], scale = Math.min(w, h) / 2 / size * 1.25;
  const pixels = context.createImageData(w, h), depth = new Float32Array(w * h).fill(-1e9);
  const [ca, sa, cb, sb] = [Math.cos(turn.a), Math.sin(turn.a), Math.cos(turn.b), Math.sin(turn.b)];
  const half = Math.max(1, Math.ceil(step * scale * 0.62)), chosen = disc >= 0 ? valueOf(disc) : 0;
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

let view = null;

function redraw() {
  if (group) {
    view = draw($("main"), group.volume, slice, { outlines: [[group.volume.labels, false]], threshold: group.threshold });
    $("where").textContent = `slice ${slice + 1} of ${group.volume.shape[2]}`;
    legend(group.volume);
    return;
  }
  if (!shown) return;
  const v = shown.volumes.image, chosen = disc >= 0 ? valueOf(disc) : 0, labels = edit ? edit.labels : v.labels;
  const outlines = compare ? [[shown.automatic, true], [labels, false]] : [[labels, false]];
  view = draw($("main"), v, slice, { outlines, chosen });
  $("where").textContent = `slice ${slice + 1} of ${v.shape[2]}${compare ? "; dashed: before the review" : ""}`;
  const share = (slice + 0.5) / v.shape[2], m = shown.volumes[mapKey], a = shown.volumes.atlas;
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

const entry = () => state.people.find(p => p.id === person);
const valueOf = n => Number(Object.keys(state.labels).find(v => state.labels[v] === entry().discs[n].level));
const listed = () => state.people.filter(p => !$("flagged").checked || p.flagged);

function list() {
  const people = listed();
  $("people").replaceChildren(...people.map(p => {
    const item = document.createElement("li"), button = document.createElement("button"), mark = document.createElement("span");
    item.className = p.done ? "done" : p.flagged ? "flag" : "";
    mark.className = "state";
    mark.textContent = p.done ? "\u2713" : p.flagged ? "\u2691" : "";
    button.append(mark, p.id);
    button.title = p.done ? "reviewed" : p.flagged ? "flagged" : "to do";
    if (p.id === person) button.setAttribute("aria-current", "true");
    button.onclick = () => show(p.id);
    item.append(button);
    return item;
  }));
  const done = people.filter(p => p.done).length;
  $("progress").textContent = `${done} of ${people.length}`;
  $("bar").max = people.length || 1;
  $("bar").value = done;
  $("people").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function words(d) {
  if (!d) return "";
  return d.decision + (d.renamed_to ? ` as ${d.renamed_to}` : "") + (d.reviewer ? ` by ${d.reviewer}` : "");
}

function side() {
  const p = entry();
  $("person").textContent = p.id;
  const rows = [{ level: "All", flags: [], decision: p.seen.find(s => s.level === "all"), stale: false }, ...p.discs];
  $("discs").replaceChildren(...rows.map((d, n) => {
    const item = document.createElement("li"), name = document.createElement("b"), text = document.createElement("span");
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(n - 1 === disc));
    item.className = d.flags.length && !(n && d.settled) ? "flag" : "";
    name.textContent = d.level;
    text.textContent = words(n && d.decision?.level === "all" ? null : d.decision) + (d.stale ? " (stale)" : "");
    text.className = d.decision ? d.decision.decision + (d.stale ? " stale" : "") : "";
    if (!text.textContent && n && d.settled) text.textContent = d.decision.decision;
    item.append(name, text);
    item.onclick = () => choose(n - 1);
    return item;
  }));
  const lines = [], d = disc >= 0 ? p.discs[disc] : null;
  const add = (text, kind = "") => lines.push(Object.assign(document.createElement("p"), { textContent: text, className: kind }));
  for (const some of d ? [d] : p.discs) for (const flag of some.flags) if (!lines.some(l => l.textContent === flag)) add(flag, "flag");
  if (compare) for (const s of p.seen) if (!d || [d.level, "all"].includes(s.level)) add(`${s.level}: ${words(s)}, ${s.date.replace("T", " ")}${s.reason ? `: ${s.reason}` : ""}`);
  if (d?.stale) add("Outlines or image have changed since this decision: look again.", "flag");
  $("detail").replaceChildren(...lines);
  for (const id of ["accept", "exclude", "rename", "edit", "back"]) $(id).disabled = state.readOnly;
  $("rename").disabled ||= disc < 0;
  $("edit").disabled ||= disc < 0;
  $("back").disabled ||= !p.seen.some(s => s.level === (d ? d.level : "all"));
  $("compare").setAttribute("aria-pressed", String(compare));
  if (state.readOnly) say("A run is in progress: the review is read only until it ends.", true);
}

function choose(n) {
  if (group) return;
  disc = Math.max(-1, Math.min(n, entry().discs.length - 1));
  side();
  redraw();
}

async function show(id, level = "") {
  if (edit) leave();
  group = null;
  document.body.classList.remove("group");
  $("statistics").hidden = true;
  for (const name of ["discs", "actions"]) $(name).hidden = false;
  person = id;
  list();
  say("");
  try {
    const found = await prefetch(id);
    if (person !== id) return;
    shown = found;
    put(found.person);
    disc = level ? entry().discs.findIndex(d => d.level === level) : -1;
    slice = middle(found.volumes.image);
    maps();
    side();
    redraw();
    history.replaceState(null, "", `#${id}`);
    document.body.dataset.shown = id;
    if (found.draft) restore(found.draft);
    const people = listed(), at = people.findIndex(p => p.id === id);
    for (const next of [people[at + 1], people[at + 2]]) if (next) prefetch(next.id).catch(() => {});
  } catch (error) { say(error.message); }
}

function put(p) {
  const at = state.people.findIndex(some => some.id === p.id);
  state.people[at] = p;
  if (shown && shown.person.id === p.id) shown.person = p;
  list();
}

function maps() {
  const keys = Object.keys(shown.volumes).filter(k => !["image", "atlas"].includes(k));
  if (!keys.includes(mapKey)) mapKey = keys[0] || "";
  $("mapChoice").replaceChildren(...keys.map(k => new Option(shown.volumes[k].name, k, false, k === mapKey)));
  $("mapChoice").hidden = keys.length < 2;
  $("mapName").textContent = keys.length ? keys.length < 2 ? shown.volumes[mapKey].name : "Map" : "No map";
}

async function step(by) {
  const people = listed(), at = people.findIndex(p => p.id === person), next = people[at + by];
  if (next) await show(next.id);
  else say(by > 0 ? "This is the last participant." : "This is the first participant.", true);
}

// ---------------------------------------------------------------- decisions

async function decide(decision, more = {}) {
  if (shown?.person.id !== person) return;   // what is not on screen is not decided
  const id = person, level = disc >= 0 ? entry().discs[disc].level : "all";
  let done = false;
  await guarded(async () => {
    try {
      put(await api("/api/decide", { person: id, level, decision, seen: entry().seen, ...more }));
      done = true;
    } catch (error) {   // show what is on disk now
      const fresh = await prefetch(id, true);
      shown = fresh;
      put(fresh.person);
      throw error;
    } finally { side(); redraw(); }
  });
  if (!done) return;
  document.body.dataset.decided = `${id} ${level} ${decision}`;
  if (decision === "accepted" && entry().done) await step(1);
}

function ask(label, choices, then) {
  asked = then;
  $("askLabel").textContent = label;
  $("choices").replaceChildren(...choices.map(c => new Option(c)));
  $("answer").value = "";
  $("ask").hidden = false;
  $("answer").focus();
}

function answered(value) {
  $("ask").hidden = true;
  const then = asked;
  asked = null;
  $("main").focus();
  if (value !== null && then) then(value.trim());
}

const what = () => disc >= 0 ? entry().discs[disc].level : `all of ${person}`;
const actions = {
  accept: () => decide("accepted"),
  exclude: () => ask(`Why is ${what()} excluded?`, ["hardware", "motion", "wrong outline", "not a disc", "fracture"], reason => decide("excluded", { reason })),
  rename: () => disc >= 0 && ask(`New name of ${what()} (neighbors follow)`, state.levels, name => decide("renamed", { renamed_to: name })),
  back: () => decide("undo"),
  compare: async () => { compare = !compare; side(); redraw(); },
  next: () => step(1), previous: () => step(-1),
  edit: () => edit ? leave() : startEdit(),
};

// ---------------------------------------------------------------- painting

function startEdit() {
  if (disc < 0) return say("Choose a disc first (arrow down), then edit.", true);
  edit = { labels: shown.volumes.image.labels.slice(), changes: new Map(), strokes: [], value: valueOf(disc), erase: false };
  $("editing").hidden = false;
  $("actions").hidden = true;
  $("editName").textContent = entry().discs[disc].level;
  const draft = shown.draft?.voxels || [];
  for (let n = 0; n < draft.length; n += 2) change(draft[n], draft[n + 1]);
  redraw();
  if (draft.length) say("An unsaved drawing was found and restored: save it (s), or discard it (x).", true);
}

function restore(draft) {
  const touched = draft.voxels.flatMap((v, n) => n % 2 ? [v] : [shown.volumes.image.labels[v]]).find(isDisc);
  disc = Math.max(0, entry().discs.findIndex(d => d.level === state.labels[touched]));
  startEdit();
  side();
}

function change(at, value) {
  edit.labels[at] = value;
  if (shown.volumes.image.labels[at] === value) edit.changes.delete(at);
  else edit.changes.set(at, value);
}

function paint(event, erase) {
  const rect = $("main").getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  const c = ((event.clientX - rect.left) * ratio - view.x0) / view.px, r = ((event.clientY - rect.top) * ratio - view.y0) / view.py;
  const [nk, nj, ni] = view.v.shape, [dk, dj] = view.v.spacing, radius = Number($("radius").value);
  for (let k = 0; k < nk; k++) for (let j = 0; j < nj; j++) {
    const x = (j - view.j0 + 0.5 - c) * dj, y = (view.k1 - k + 0.5 - r) * dk;
    if (x * x + y * y > radius * radius) continue;
    const at = (k * nj + j) * ni + slice, old = edit.labels[at], value = erase ? 0 : edit.value;
    if (old === value || (erase ? old !== edit.value : isDisc(old))) continue;   // other discs stay
    edit.strokes.at(-1).push([at, old]);
    change(at, value);
  }
  redraw();
}

const flat = () => [...edit.changes].flat();
const keep = () => api("/api/draft", { person, voxels: flat() }).catch(error => say(error.message));

function undo() {
  for (const [at, old] of (edit.strokes.pop() || []).reverse()) change(at, old);
  redraw();
  return keep();
}

async function save() {
  const id = person;
  await guarded(async () => {
    const saved = await api("/api/correct", { person: id, voxels: flat(), seen: entry().seen });
    close();
    shown = await prefetch(id, true);
    put(shown.person);
    document.body.dataset.decided = `${id} ${saved.corrected.join(" ")} corrected`;
    side();
    redraw();
  });
}

function leave() {   // what was drawn stays a draft
  shown.draft = edit.changes.size ? { voxels: flat() } : null;
  close();
  redraw();
}

async function discard() {
  shown.draft = null;
  close();
  redraw();
  await api("/api/draft", { person, voxels: [] }).catch(error => say(error.message));
}

function close() {
  edit = null;
  $("editing").hidden = true;
  $("actions").hidden = false;
}

// ---------------------------------------------------------------- statistical maps on the atlas

async function statistics(name = state.group.find(n => n.endsWith("_t")) || state.group[0]) {
  if (!name) return say("The study has no statistical map: run it with a formula.", true);
  if (edit) leave();
  await guarded(async () => {
    const query = `map=${encodeURIComponent(name)}`, head = await api(`/api/map?name=${encodeURIComponent(name)}`);
    group = { name, clusters: head.clusters, volume: volume(head, await api(`/api/volume?${query}`)), threshold: 0 };
    slice = middle(group.volume);
    document.body.classList.add("group");
    for (const id of ["discs", "actions"]) $(id).hidden = true;
    $("detail").replaceChildren();
    $("person").textContent = name;
    $("statChoice").replaceChildren(...state.group.map(n => new Option(n, n, false, n === name)));
    $("statistics").hidden = false;
    $("threshold").value = 0;
    $("thresholdText").textContent = "";
    const columns = ["level", "peak", "p_extent", "voxels"];
    const cells = (row, kind) => { const tr = document.createElement("tr"); tr.append(...row.map(t => Object.assign(document.createElement(kind), { textContent: t }))); return tr; };
    $("clusters").tHead.replaceChildren(cells(["Level", "Peak", "p (extent)", "Voxels"], "th"));
    $("clusters").tBodies[0].replaceChildren(...group.clusters.map(c => {
      const row = cells(columns.map(n => Number.isFinite(Number(c[n])) ? Number(Number(c[n]).toPrecision(3)) : c[n]), "td");
      row.onclick = () => { slice = Math.max(0, Math.min(c.voxel[2], group.volume.shape[2] - 1)); redraw(); };
      return row;
    }));
    document.body.dataset.shown = name;
    redraw();
  });
}

// ---------------------------------------------------------------- keys, mouse, start

const KEYS = { a: ["accept", "Accept the chosen disc, or all"], x: ["exclude", "Exclude, with a reason"], r: ["rename", "Rename the chosen disc"],
  e: ["edit", "Edit the chosen disc's outline"], u: ["back", "Take the decision back"], c: ["compare", "Compare with before the review, and who decided"],
  n: ["next", "Next participant"], p: ["previous", "Previous participant"] };

addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state) return;
  if (event.key === "Escape" && asked) return answered(null);
  if (["INPUT", "SELECT"].includes(event.target.tagName) && event.target.type !== "checkbox" && event.target.type !== "range" || $("keys").open) return;
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key, depth = group ? group.volume : shown?.volumes.image;
  const run = work => { event.preventDefault(); work(); };
  if (edit && "szdx[]".includes(key)) return run({ s: save, z: undo, x: discard, d: () => $("erase").click(), "[": () => $("radius").stepDown(), "]": () => $("radius").stepUp() }[key]);
  if (edit && key === "Escape") return run(leave);
  if (key === "ArrowLeft" || key === "ArrowRight") return run(() => { slice = Math.max(0, Math.min(slice + (key === "ArrowLeft" ? -1 : 1), depth.shape[2] - 1)); redraw(); });
  if (key === "?") return run(() => $("keys").showModal());
  if (key === "m") return run(() => group ? show(person) : statistics());
  if (key === "f") return run(() => $("flagged").click());
  if (group || !shown) return;
  if (!edit && (key === "ArrowDown" || key === "ArrowUp")) return run(() => choose(disc + (key === "ArrowDown" ? 1 : -1)));
  if (KEYS[key] && !(edit && key !== "e") && !$(KEYS[key][0]).disabled) run(actions[KEYS[key][0]]);
});

for (const [key, [name]] of Object.entries(KEYS)) $(name).onclick = () => actions[name]();
$("keyList").replaceChildren(...[...Object.entries(KEYS).map(([k, [, text]]) => [k, text]), ["\u2191 \u2193", "Choose a disc, or all"], ["\u2190 \u2192", "Slice"],
  ["f", "Flagged participants only"], ["m", "Statistical maps"], ["s z x d [ ]", "While editing: save, undo, discard, erase, radius"]].flatMap(([k, text]) =>
  [Object.assign(document.createElement("dt"), { textContent: k }), Object.assign(document.createElement("dd"), { textContent: text })]));
$("help").onclick = () => $("keys").showModal();
$("closeKeys").onclick = () => $("keys").close();
$("maps").onclick = () => group ? show(person) : statistics();
$("flagged").onchange = () => { list(); const people = listed(); if (people.length && !people.some(p => p.id === person)) show(people[0].id); };
$("mapChoice").onchange = event => { mapKey = event.target.value; maps(); redraw(); $("main").focus(); };
$("statChoice").onchange = event => { statistics(event.target.value); $("main").focus(); };
$("threshold").oninput = event => { group.threshold = Number(event.target.value); $("thresholdText").textContent = `\u00b1${(group.threshold * group.volume.high).toPrecision(3)}`; redraw(); };
$("ask").onsubmit = event => { event.preventDefault(); answered($("answer").value); };
$("askCancel").onclick = () => answered(null);
$("erase").onclick = () => { edit.erase = !edit.erase; $("erase").setAttribute("aria-pressed", String(edit.erase)); };
$("undo").onclick = undo;
$("save").onclick = save;
$("leave").onclick = leave;
$("discard").onclick = discard;
$("main").oncontextmenu = event => event.preventDefault();
$("main").onpointerdown = event => {
  if (!edit) return;
  edit.strokes.push([]);
  $("main").setPointerCapture(event.pointerId);
  const erase = edit.erase || event.shiftKey || event.button === 2;
  paint(event, erase);
  $("main").onpointermove = move => paint(move, erase);
};
$("main").onpointerup = () => { if ($("main").onpointermove) { $("main").onpointermove = null; keep(); } };
$("main").onwheel = event => {
  const depth = (group ? group.volume : shown?.volumes.image)?.shape[2] || 1;
  slice = Math.max(0, Math.min(slice + Math.sign(event.deltaY), depth - 1));
  redraw();
};
$("solid").onpointerdown = event => {
  $("solid").setPointerCapture(event.pointerId);
  $("solid").onpointermove = move => { turn.a += move.movementX / 100; turn.b += move.movementY / 100; drawSolid(); };
};
$("solid").onpointerup = () => { $("solid").onpointermove = null; };
new ResizeObserver(redraw).observe($("views"));

setInterval(async () => {   // a run that begins makes the review read only, its end ends that
  const found = state && person && await api("/api/lock").catch(() => null);
  if (!found || found.readOnly === state.readOnly) return;
  state.readOnly = found.readOnly;
  say("");
  if (!group) side();
}, 2000);

guarded(async () => {
  state = await api("/api/state");
  $("title").textContent = state.title;
  $("simulated").hidden = !state.simulated;
  const [id, level] = decodeURIComponent(location.hash.slice(1)).split("/");
  const first = state.people.find(p => p.id === id) || state.people.find(p => !p.done) || state.people[0];
  await show(first.id, first.id === id ? level : "");
});
