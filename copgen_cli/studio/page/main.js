// The page: choose a place, ask, see, take, judge.

import { call, encode, follow, get } from "./api.js";
import { setUpMap } from "./map.js";
import { ResultView } from "./result.js";
import { setUpTexts, text } from "./texts.js";

const by = (id) => document.getElementById(id);
const ROLES = ["given", "wanted", "left_out"];
const WHOLE = "*";
const NONE = { type: "FeatureCollection", features: [] };

const state = { model: null, regions: [], cells: NONE, patches: NONE, patch: null, files: new Map(), id: null, stop: null };
let map = null;
let view = null;

const titleOf = (name) => state.model.modalities.find((one) => one.name === name)?.title ?? name;

function tell(problem) {
  const box = by("message");
  const words = typeof problem === "string" ? problem : problem ? (problem.status === 0 ? text("offline") : problem.message) : "";
  box.hidden = !words;
  box.textContent = words;
}

function options(select, names, chosen, none = false) {
  select.replaceChildren(...(none ? [new Option(text("none"), "")] : []), ...names.map((name) => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
}

// 1: the place

async function chooseRegion(name) {
  state.cells = name ? await get(`api/regions/${encode(name)}/cells`) : NONE;
  by("region").value = name;
  options(by("cell"), state.cells.features.map((one) => one.properties.cell), "", true);
  map?.showCells(state.cells);
  state.patches = NONE;
  options(by("patch"), [], "", true);
  choosePatch("");
}

async function chooseCell(name) {
  by("cell").value = name;
  const cell = state.cells.features.find((one) => one.properties.cell === name);
  state.patches = cell?.properties.patches ? await get(`api/regions/${encode(by("region").value)}/cells/${encode(name)}/patches`) : NONE;
  const names = state.patches.features.map((one) => one.properties.patch);
  options(by("patch"), names, "", true);
  if (cell) by("patch").append(new Option(text("whole"), WHOLE));
  map?.showPatches(state.patches);
  choosePatch(names[0] ?? (cell ? WHOLE : ""));
}

/** The cell as a map, with what all of its patches have; of one that is only downloaded, what the model knows. */
function wholeCell() {
  const names = state.model.modalities.map((one) => one.name);
  const patches = state.patches.features.map((one) => one.properties.modalities);
  return { whole: true, patch: by("cell").value, modalities: names.filter((name) => patches.every((has) => has.includes(name))) };
}

function choosePatch(name) {
  by("patch").value = name;
  const feature = state.patches.features.find((one) => one.properties.patch === name) ?? null;
  state.patch = name === WHOLE ? wholeCell() : (feature?.properties ?? null);
  map?.choose(feature);
  sayPlace();
  fillMatrix();
}

const EDGES = ["west", "south", "east", "north"];

/** A box as a map, with what the region has. */
function useBox(edges) {
  by("box-draw").setAttribute("aria-pressed", "false");
  EDGES.forEach((edge, number) => { by(edge).value = edges[number]; });
  by("patch").value = "";
  const region = state.regions.find((one) => one.name === by("region").value);
  state.patch = { whole: true, box: edges, patch: text("box_of", Object.fromEntries(EDGES.map((edge, number) => [edge, edges[number]]))), modalities: region?.modalities ?? [] };
  map?.showBox(edges);
  sayPlace();
  fillMatrix();
}

function readBox() {
  const edges = EDGES.map(number);
  if (edges.some((edge) => !Number.isFinite(edge) || edge === null) || edges[0] >= edges[2] || edges[1] >= edges[3]) return tell(text("box_wrong"));
  tell("");
  useBox(edges);
}

function drawBox() {
  const is = by("box-draw").getAttribute("aria-pressed") !== "true";
  by("box-draw").setAttribute("aria-pressed", String(is));
  map?.startBox(is);
  if (is) by("mapside").scrollIntoView({ block: "nearest" });
}

function sayPlace() {
  by("place-words").textContent = state.patch
    ? text(state.patch.whole ? "chosen_whole" : "chosen", { patch: state.patch.patch, modalities: state.patch.modalities.map(titleOf).join(", ") })
    : !state.regions.length ? text("no_regions") : "";
}

// 2: what is asked

const roleOf = (name) => document.querySelector(`input[name="role-${name}"]:checked`)?.value ?? "left_out";
const has = (name) => state.files.has(name) || (state.patch?.modalities.includes(name) ?? false);

function setRole(name, role) {
  const input = by(`role-${name}-${role}`);
  if (input && !input.disabled) input.checked = true;
}

function row(modality) {
  const line = document.createElement("tr");
  line.dataset.modality = modality.name;
  const title = document.createElement("th");
  title.scope = "row";
  title.textContent = modality.title;
  if (modality.kind !== "scalar") title.append(filePicker(modality));
  line.append(title);
  for (const role of ROLES) {
    const place = document.createElement("td");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: `role-${modality.name}`, value: role, id: `role-${modality.name}-${role}` });
    input.setAttribute("aria-label", `${modality.title}: ${text(role)}`);
    place.append(input);
    line.append(place);
  }
  line.addEventListener("dragover", (event) => { event.preventDefault(); line.classList.add("over"); });
  line.addEventListener("dragleave", () => line.classList.remove("over"));
  line.addEventListener("drop", (event) => {
    event.preventDefault();
    line.classList.remove("over");
    if (event.dataTransfer.files[0]) upload(modality.name, event.dataTransfer.files[0]);
  });
  return line;
}

function filePicker(modality) {
  const label = document.createElement("label");
  label.className = "pick";
  const words = document.createElement("span");
  const input = document.createElement("input");
  input.type = "file";
  input.accept = "image/png,image/jpeg,image/webp,image/tiff,.tif,.tiff";
  input.className = "hidden";
  input.addEventListener("change", () => { if (input.files[0]) upload(modality.name, input.files[0]); input.value = ""; });
  label.append(words, input);
  label.addEventListener("click", (event) => {
    if (!state.files.has(modality.name)) return;
    event.preventDefault();
    state.files.delete(modality.name);
    fillMatrix();
  });
  return label;
}

function makeMatrix() {
  const roles = Object.fromEntries(state.model.modalities.map((one) => [one.name, roleOf(one.name)]));
  by("matrix").tBodies[0].replaceChildren(...state.model.modalities.map(row));
  for (const [name, role] of Object.entries(roles)) setRole(name, role);
  fillMatrix();
}

/** What can be given follows from place and files. */
function fillMatrix() {
  for (const { name, title } of state.model.modalities) {
    const given = by(`role-${name}-given`);
    if (!given) continue;
    given.disabled = !has(name);
    if (given.disabled && given.checked) setRole(name, "left_out");
    const words = document.querySelector(`tr[data-modality="${name}"] .pick span`);
    const file = state.files.get(name);
    if (words) words.textContent = file ? `✕ ${file.name}` : text("choose_file");
    words?.parentElement.querySelector("input").setAttribute("aria-label", file ? `${text("remove")}: ${file.name}` : text("file_of", { title }));
  }
}

async function upload(name, file) {
  tell(text("uploading", { name: file.name }));
  try {
    const taken = await call("POST", `api/uploads?modality=${encode(name)}`, file);
    state.files.set(name, { id: taken.id, name: file.name, file });
    fillMatrix();
    setRole(name, "given");
    tell(taken.notes.join("\n"));
  } catch (problem) {
    tell(problem);
  }
}

const number = (id) => (by(id).value === "" ? null : Number(by(id).value));

function wishes() {
  const named = (role) => state.model.modalities.map((one) => one.name).filter((name) => roleOf(name) === role);
  const given = named("given");
  const region = by("region").value;
  const whole = state.patch?.whole ?? false;
  const place = state.patch && !whole ? { region, patch: state.patch.patch } : null;
  return {
    generate: named("wanted"),
    condition: given,
    place,
    area: !whole ? null : state.patch.box ? { region, bbox: state.patch.box } : { region, cell: by("cell").value },
    uploads: Object.fromEntries(given.filter((name) => state.files.has(name)).map((name) => [name, state.files.get(name).id])),
    n_samples: number("n_samples"),
    seed: number("seed"),
    steps: number("steps-number"),
    guidance_scale: number("guidance_scale"),
    solver: by("solver").value,
    spread: by("spread").checked,
  };
}

/** A studio that was started again does not know the files any more: they are handed in once more. */
async function submit(wanted) {
  try {
    return await call("POST", "api/requests", wanted);
  } catch (problem) {
    const names = Object.keys(wanted.uploads);
    if (problem.status !== 404 || !names.length) throw problem;
    for (const name of names) {
      const held = state.files.get(name);
      held.id = (await call("POST", `api/uploads?modality=${encode(name)}`, held.file)).id;
    }
    return call("POST", "api/requests", { ...wanted, uploads: Object.fromEntries(names.map((name) => [name, state.files.get(name).id])) });
  }
}

async function ask(event) {
  event.preventDefault();
  const wanted = wishes();
  if (!wanted.generate.length) return tell(text("no_wanted"));
  tell("");
  by("draw").disabled = true;
  try {
    const told = await submit(wanted);
    view.asked = wanted.generate;
    track(told.id);
    view.show(told);
    by("see").scrollIntoView({ block: "start" });
  } catch (problem) {
    tell(problem);
  } finally {
    by("draw").disabled = false;
  }
}

// 3: what comes of it

function track(id) {
  state.stop?.();
  state.id = id;
  history.replaceState(null, "", `#request=${id}`);
  state.stop = follow(id, {
    changed: (told) => { if (told.id === state.id) { tell(""); view.show(told); } },
    gone: () => forget(text("gone")),
    offline: () => tell(text("asked_again")),
  });
}

function forget(words) {
  state.id = null;
  history.replaceState(null, "", location.pathname);
  for (const id of ["see", "take", "judge"]) by(id).hidden = true;
  by("cancel").hidden = true;
  map?.lay(null);
  tell(words);
}

async function cancel() {
  try { view.show(await call("DELETE", `api/requests/${encode(state.id)}`)); } catch (problem) { tell(problem); }
}

function rewrite() {
  if (!state.model) return;
  makeMatrix();
  sayPlace();
  map?.restyle();
  if (view?.state) view.show(view.state);
}

function setDefaults({ defaults, limits, solvers }) {
  by("solver").replaceChildren(...solvers.map((name) => new Option(name, name)));
  by("n_samples").value = Math.max(2, defaults.n_samples);
  by("seed").value = defaults.seed;
  by("steps-number").value = defaults.steps;
  by("guidance_scale").value = defaults.guidance_scale;
  by("solver").value = defaults.solver;
  by("n_samples").max = limits.n_samples;
  by("steps-number").max = limits.steps;
}

async function openMap() {
  map = await setUpMap({
    cell: (name) => chooseCell(name).catch(tell),
    patch: choosePatch,
    box: useBox,
    point: (shares) => view.readMapPixel(shares),
  });
  by("map").hidden = !map;
  by("box-draw").hidden = !map;
  by("nomap").hidden = Boolean(map);
  if (!map) return;
  map.showCells(state.cells);
  if (state.patches.features.length) map.showPatches(state.patches);
  map.choose(state.patches.features.find((one) => one.properties.patch === by("patch").value) ?? null);
  view.setMap(map);
}

async function start() {
  await setUpTexts(rewrite);
  by("region").addEventListener("change", () => chooseRegion(by("region").value).catch(tell));
  by("cell").addEventListener("change", () => chooseCell(by("cell").value).catch(tell));
  by("patch").addEventListener("change", () => choosePatch(by("patch").value));
  by("ask").addEventListener("submit", ask);
  by("cancel").addEventListener("click", cancel);
  by("box-draw").addEventListener("click", drawBox);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { // beside the rows: the browser would leave the page and show the file
    if (!event.defaultPrevented) tell(text("drop_on_row"));
    event.preventDefault();
  });
  by("box-use").addEventListener("click", readBox);
  [state.model, state.regions] = await Promise.all([get("api/model"), get("api/regions")]);
  by("model").textContent = `${state.model.source} · ${state.model.version}`;
  setDefaults(state.model);
  makeMatrix();
  setRole(state.model.modalities[0].name, "wanted");
  options(by("region"), state.regions.map((one) => one.name), "", !state.regions.length);
  view = new ResultView(titleOf);
  const first = state.regions.find((one) => one.prepared) ?? state.regions[0];
  await chooseRegion(first?.name ?? "");
  const earlier = /^#request=(\w+)$/.exec(location.hash);
  if (earlier) track(earlier[1]);
  await openMap(); // last: all else works without
  document.documentElement.dataset.ready = "true";
}

start().catch(tell);
