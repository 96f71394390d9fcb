// Going from one participant to the next.
import { leave, restore } from "./drawing.js";
import { $, entry, listed, now, say } from "./now.js";
import { redraw } from "./pictures.js";
import { api, prefetch } from "./program.js";
import { list, maps, put, side } from "./side.js";
import { middle } from "./views.js";

export async function show(id, level = "") {
  if (now.edit) leave();
  now.group = null;
  document.body.classList.remove("group");
  $("statistics").hidden = true;
  for (const name of ["discs", "actions"]) $(name).hidden = false;
  now.person = id;
  now.disc = -1;
  list();
  say("");
  try {
    const found = await prefetch(id);
    if (now.person !== id) return;
    now.shown = found;
    put(found.person);
    now.disc = level ? entry().discs.findIndex(d => d.level === level) : -1;
    now.slice = middle(found.volumes.image);
    maps();
    side();
    redraw();
    history.replaceState(null, "", `#${id}`);
    document.body.dataset.shown = id;
    if (found.draft) restore(found.draft);
    await inSlicer();
    const people = listed(), at = people.findIndex(p => p.id === id);
    for (const next of [people[at + 1], people[at + 2]]) if (next) prefetch(next.id).catch(() => {});
  } catch (error) { say(error.message); }
}

export async function inSlicer() {
  if (!now.views || now.views.closed) return;
  const { address } = await api("/api/views", { person: now.person });
  if (now.address !== address) now.views.location = now.address = address;
}

export async function step(by) {
  const people = listed(), at = people.findIndex(p => p.id === now.person), next = people[at + by];
  if (next) await show(next.id);
  else say(by > 0 ? "This is the last participant." : "This is the first participant.", true);
}
