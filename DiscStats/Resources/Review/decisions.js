// Decisions, and the question that some of them ask.
import { leave, startEdit } from "./drawing.js";
import { $, entry, now } from "./now.js";
import { redraw } from "./pictures.js";
import { api, guarded, prefetch } from "./program.js";
import { put, side } from "./side.js";
import { step } from "./visit.js";

let asked = null;
export const asking = () => asked !== null;

async function decide(decision, more = {}) {
  if (now.shown?.person.id !== now.person) return;   // what is not on screen is not decided
  const id = now.person, level = now.disc >= 0 ? entry().discs[now.disc].level : "all";
  let done = false;
  await guarded(async () => {
    try {
      put(await api("/api/decide", { person: id, level, decision, seen: entry().seen, ...more }));
      done = true;
    } catch (error) {   // show what is on disk now
      const fresh = await prefetch(id, true);
      now.shown = fresh;
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

export function answered(value) {
  $("ask").hidden = true;
  const then = asked;
  asked = null;
  $("main").focus();
  if (value !== null && then) then(value.trim());
}

const what = () => now.disc >= 0 ? entry().discs[now.disc].level : `all of ${now.person}`;
export const actions = {
  accept: () => decide("accepted"),
  exclude: () => ask(`Why is ${what()} excluded?`, ["hardware", "motion", "wrong outline", "not a disc", "fracture"], reason => decide("excluded", { reason })),
  rename: () => now.disc >= 0 && ask(`New name of ${what()} (neighbors follow)`, now.state.levels, name => decide("renamed", { renamed_to: name })),
  back: () => decide("undo"),
  compare: async () => { now.compare = !now.compare; side(); redraw(); },
  next: () => step(1), previous: () => step(-1),
  edit: () => now.edit ? leave() : startEdit(),
};
