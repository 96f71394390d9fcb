// What is on screen now; all else that matters is on disk.
export const now = {
  state: null,      // everyone, labels, levels, and whether a run is in progress
  person: null, shown: null,   // id, and what is shown of that participant
  disc: -1, slice: 0, compare: false, mapKey: "",
  edit: null,       // a drawing in progress
  group: null,      // a statistical map
  views: null, address: "",   // the window with Slicer's views
  view: null,       // how the main canvas lies on the image
};

export const $ = id => document.getElementById(id);
export const entry = () => now.state.people.find(p => p.id === now.person);
export const valueOf = n => Number(Object.keys(now.state.labels).find(v => now.state.labels[v] === entry().discs[n].level));
export const listed = () => now.state.people.filter(p =>
  (p.flagged || !$("flagged").checked) && p.id.toLowerCase().includes($("find").value.trim().toLowerCase()));

export function say(text, note = false) {
  $("message").textContent = text;
  $("message").hidden = !text;
  $("message").classList.toggle("note", note);
}
