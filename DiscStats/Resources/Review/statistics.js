// Statistical maps on the atlas.
import { leave } from "./drawing.js";
import { $, now, say } from "./now.js";
import { redraw } from "./pictures.js";
import { api, guarded, volume } from "./program.js";
import { middle } from "./views.js";

export async function statistics(name = now.state.group.find(n => n.endsWith("_t")) || now.state.group[0]) {
  if (!name) return say("The study has no statistical map: run it with a formula.", true);
  if (now.edit) leave();
  await guarded(async () => {
    const query = `map=${encodeURIComponent(name)}`, head = await api(`/api/map?name=${encodeURIComponent(name)}`);
    now.group = { name, clusters: head.clusters, volume: volume(head, await api(`/api/volume?${query}`)), threshold: 0 };
    now.slice = middle(now.group.volume);
    document.body.classList.add("group");
    for (const id of ["discs", "actions"]) $(id).hidden = true;
    $("detail").replaceChildren();
    $("person").textContent = name;
    $("statChoice").replaceChildren(...now.state.group.map(n => new Option(n, n, false, n === name)));
    $("statistics").hidden = false;
    $("threshold").value = 0;
    $("thresholdText").textContent = "";
    const columns = ["level", "peak", "p_extent", "voxels"];
    const cells = (row, kind) => { const tr = document.createElement("tr"); tr.append(...row.map(t => Object.assign(document.createElement(kind), { textContent: t }))); return tr; };
    $("clusters").tHead.replaceChildren(cells(["Level", "Peak", "p (extent)", "Voxels"], "th"));
    $("clusters").tBodies[0].replaceChildren(...now.group.clusters.map(c => {
      const row = cells(columns.map(n => Number.isFinite(Number(c[n])) ? Number(Number(c[n]).toPrecision(3)) : c[n]), "td");
      row.onclick = () => { now.slice = Math.max(0, Math.min(c.voxel[2], now.group.volume.shape[2] - 1)); redraw(); };
      row.tabIndex = 0;
      row.onkeydown = event => { if (event.key === "Enter") row.onclick(); };
      return row;
    }));
    document.body.dataset.shown = name;
    redraw();
  });
}
