// Talking to the program: requests, and what was loaded in advance.
import { say } from "./now.js";
import { surface, table } from "./views.js";

const token = new URLSearchParams(location.search).get("token") || "";
const cache = new Map();              // person -> promise of what is shown
let busy = false;

export async function api(path, body) {
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

export async function guarded(work) {
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

export function volume(head, bytes) {
  const size = head.shape[0] * head.shape[1] * head.shape[2];
  return { ...head, image: bytes.subarray(0, size), labels: bytes.slice(size), lut: table(head.colors) };
}

export function prefetch(id, again = false) {
  if (again) cache.delete(id);
  if (!cache.has(id)) {
    const promise = load(id);
    cache.set(id, promise);
    promise.catch(() => cache.delete(id));
  }
  while (cache.size > 4) cache.delete(cache.keys().next().value);
  return cache.get(id);
}
