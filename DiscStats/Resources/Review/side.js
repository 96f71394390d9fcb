// The list of participants, and the discs and decisions of one.
import { $, entry, listed, now, say } from "./now.js";
import { redraw } from "./pictures.js";

const PAGE = 100;   // participants of the list on screen
let start = 0;

export function list() {
  turnPage(0, Math.max(0, listed().findIndex(p => p.id === now.person)));
}

// Shows the page of the list that holds a place, or one as many pages away.
export function turnPage(pages, place = start) {
  const people = listed();
  start = Math.max(0, Math.min((Math.floor(place / PAGE) + pages) * PAGE, people.length - 1));
  start -= start % PAGE;
  const end = Math.min(start + PAGE, people.length);
  $("pages").hidden = people.length <= PAGE;
  $("range").textContent = `${start + 1}\u2013${end}`;
  $("before").disabled = start === 0;
  $("after").disabled = end === people.length;
  $("people").replaceChildren(...people.slice(start, end).map(p => {
    const item = document.createElement("li"), button = document.createElement("button"), mark = document.createElement("span");
    item.className = p.done ? "done" : p.flagged ? "flag" : "";
    mark.className = "state";
    mark.textContent = p.done ? "\u2713" : p.flagged ? "\u2691" : "";
    button.append(mark, p.id);
    button.title = p.done ? "reviewed" : p.flagged ? "flagged" : "to do";
    if (p.id === now.person) button.setAttribute("aria-current", "true");
    button.dataset.id = p.id;
    item.append(button);
    return item;
  }));
  const done = people.filter(p => p.done).length;
  $("progress").textContent = `${done} of ${people.length}`;
  $("bar").max = people.length || 1;
  $("bar").value = done;
  $("people").querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export function put(p) {
  const at = now.state.people.findIndex(some => some.id === p.id);
  now.state.people[at] = p;
  if (now.shown && now.shown.person.id === p.id) now.shown.person = p;
  list();
}

function words(d) {
  if (!d) return "";
  return d.decision + (d.renamed_to ? ` as ${d.renamed_to}` : "") + (d.reviewer ? ` by ${d.reviewer}` : "");
}

export function side() {
  const p = entry();
  $("person").textContent = p.id;
  const rows = [{ level: "All", flags: [], decision: p.seen.find(s => s.level === "all"), stale: false }, ...p.discs];
  $("discs").replaceChildren(...rows.map((d, n) => {
    const item = document.createElement("li"), name = document.createElement("b"), text = document.createElement("span");
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(n - 1 === now.disc));
    item.className = d.flags.length && !(n && d.settled) ? "flag" : "";
    name.textContent = d.level;
    text.textContent = words(n && d.decision?.level === "all" ? null : d.decision) + (d.stale ? " (stale)" : "");
    text.className = d.decision ? d.decision.decision + (d.stale ? " stale" : "") : "";
    if (!text.textContent && n && d.settled) text.textContent = d.decision.decision;
    item.append(name, text);
    item.onclick = () => choose(n - 1);
    return item;
  }));
  const lines = [], d = now.disc >= 0 ? p.discs[now.disc] : null;
  const add = (text, kind = "") => lines.push(Object.assign(document.createElement("p"), { textContent: text, className: kind }));
  for (const some of d ? [d] : p.discs) for (const flag of some.flags) if (!lines.some(l => l.textContent === flag)) add(flag, "flag");
  if (now.compare) for (const s of p.seen) if (!d || [d.level, "all"].includes(s.level)) add(`${s.level}: ${words(s)}, ${s.date.replace("T", " ")}${s.reason ? `: ${s.reason}` : ""}`);
  if (d?.stale) add("Outlines or image have changed since this decision: look again.", "flag");
  $("detail").replaceChildren(...lines);
  for (const id of ["accept", "exclude", "rename", "edit", "back"]) $(id).disabled = now.state.readOnly;
  $("rename").disabled ||= now.disc < 0;
  $("edit").disabled ||= now.disc < 0;
  $("back").disabled ||= !p.seen.some(s => s.level === (d ? d.level : "all"));
  $("compare").setAttribute("aria-pressed", String(now.compare));
  if (now.state.readOnly) say("A run is in progress: the review is read only until it ends.", true);
}

export function choose(n) {
  if (now.group || !entry().discs) return;
  now.disc = Math.max(-1, Math.min(n, entry().discs.length - 1));
  side();
  redraw();
}

export function maps() {
  const keys = Object.keys(now.shown.volumes).filter(k => !["image", "atlas"].includes(k));
  if (!keys.includes(now.mapKey)) now.mapKey = keys[0] || "";
  $("mapChoice").replaceChildren(...keys.map(k => new Option(now.shown.volumes[k].name, k, false, k === now.mapKey)));
  $("mapChoice").hidden = keys.length < 2;
  $("mapName").textContent = keys.length ? keys.length < 2 ? now.shown.volumes[now.mapKey].name : "Map" : "No map";
}
