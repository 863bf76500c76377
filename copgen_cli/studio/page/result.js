// A request on its way and its result: progress, previews, pictures, the swipe, downloads, lines, numbers.

import { encode, get } from "./api.js";
import { text } from "./texts.js";

const by = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
};
const path = (id) => `api/requests/${encode(id)}`;
const kindOf = (picture) => {
  if (picture.kind === "sample") return text("sample", { number: /_v(\d+)$/.exec(picture.name)?.[1] ?? 1 });
  return /^q\d+$/.test(picture.kind) ? text("quantile", { percent: picture.kind.slice(1) }) : text(picture.kind);
};

export class ResultView {
  /** @param titleOf modality to its title  @param map null where there is none */
  constructor(titleOf, map) {
    this.titleOf = titleOf;
    this.map = map;
    this.state = null;
    this.chosen = 0;
    this.scores = null;
    by("swipe-at").addEventListener("input", () => this.swipe(Number(by("swipe-at").value)));
    for (const side of ["left", "right"]) by(side).addEventListener("change", () => this.compare());
    by("opacity").addEventListener("input", () => this.map?.opacity(by("opacity").value / 100));
    const swipe = by("swipe");
    const at = (event) => (100 * (event.clientX - swipe.getBoundingClientRect().left)) / swipe.clientWidth;
    swipe.addEventListener("pointerdown", (event) => { swipe.setPointerCapture(event.pointerId); this.swipe(at(event)); });
    swipe.addEventListener("pointermove", (event) => { if (event.buttons) this.swipe(at(event)); this.readPixel(event); });
    swipe.addEventListener("dragstart", (event) => event.preventDefault());
    for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => this.copy(button));
    this.canvases = {};
  }

  show(state) {
    const fresh = this.state?.id !== state.id;
    this.state = state;
    if (fresh) { this.chosen = 0; this.scores = null; by("previews").replaceChildren(); this.laid = null; }
    by("see").hidden = false;
    const running = state.state === "running" || state.state === "waiting";
    const bar = by("progress");
    bar.hidden = !running;
    if (state.steps) { bar.max = state.steps; bar.value = state.step; } else bar.removeAttribute("value");
    by("status").textContent = this.words();
    by("cancel").hidden = !running;
    this.showPreviews(state, running);
    const done = state.state === "done";
    for (const id of ["result", "take"]) by(id).hidden = !done;
    by("judge").hidden = !(done && state.result.truth.length);
    if (done) this.showResult(state.result);
    else { by("opacity-row").hidden = true; if (fresh) this.map?.lay(null); }
  }

  words() {
    const { state, position, step, steps, problem, result } = this.state;
    if (state === "failed") return `${text("failed")} ${problem.error} ${problem.hint}`;
    if (state === "done") return text(result.cached ? "cached" : "done", { seconds: result.seconds.toFixed(1) });
    return text(state, { position, step, steps });
  }

  showPreviews(state, running) {
    const place = by("previews");
    if (!running) { place.replaceChildren(); return; }
    if (!state.preview || place.dataset.number === `${state.id}.${state.preview}`) return;
    place.dataset.number = `${state.id}.${state.preview}`;
    for (const modality of this.asked ?? []) {
      const alt = text("preview_of", { title: this.titleOf(modality) });
      const source = `${path(state.id)}/preview/${encode(modality)}.png?${state.preview}`;
      let image = place.querySelector(`img[data-modality="${modality}"]`);
      if (!image) {
        image = make("img", { "data-modality": modality });
        place.append(make("figure", {}, image, make("figcaption", { text: this.titleOf(modality) })));
      }
      image.alt = alt;
      image.src = source;
    }
  }

  source(picture) { return `${path(this.state.id)}/pictures/${picture.number}.png`; }

  showResult(result) {
    const groups = new Map();
    for (const picture of result.pictures) groups.set(picture.modality, [...(groups.get(picture.modality) ?? []), picture]);
    by("pictures").replaceChildren(...[...groups].flatMap(([modality, pictures]) => [
      make("h3", { text: this.titleOf(modality) }),
      make("div", { class: "pictures" }, ...pictures.map((picture) => this.figure(picture))),
    ]));
    const options = [
      ...result.truth.map((m) => [`truth/${m}`, text("truth_of", { title: this.titleOf(m) })]),
      ...result.given.map((m) => [`given/${m}`, text("given_of", { title: this.titleOf(m) })]),
      ...result.pictures.map((p) => [`pictures/${p.number}`, `${this.titleOf(p.modality)}, ${kindOf(p)}`]),
    ];
    for (const side of ["left", "right"]) {
      const before = by(side).value;
      by(side).replaceChildren(...options.map(([value, words]) => make("option", { value, text: words })));
      if (options.some(([value]) => value === before)) by(side).value = before;
    }
    this.choose(this.chosen, false);
    this.showFiles(result);
    by("command").textContent = result.lines.command;
    by("python").textContent = result.lines.python;
    if (result.truth.length) this.showScores();
  }

  figure(picture) {
    const label = text("on_map", { title: this.titleOf(picture.modality), kind: kindOf(picture) });
    const image = make("img", { src: this.source(picture), alt: "", width: picture.width, height: picture.height });
    const button = make("button", { type: "button", "aria-label": label, "aria-pressed": "false", "data-number": picture.number }, image);
    button.addEventListener("click", () => this.choose(picture.number));
    return make("figure", {}, button, make("figcaption", { text: kindOf(picture) }));
  }

  choose(number, byHand = true) {
    const result = this.state.result;
    const picture = result.pictures[number];
    if (!picture) return;
    this.chosen = number;
    for (const button of by("pictures").querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(Number(button.dataset.number) === number));
    const beside = result.truth.includes(picture.modality) ? `truth/${picture.modality}` : result.given.length ? `given/${result.given[0]}` : null;
    if (byHand || !by("right").dataset.set || by("right").dataset.set !== this.state.id) {
      by("right").value = `pictures/${number}`;
      by("left").value = beside ?? `pictures/${number}`;
      by("right").dataset.set = this.state.id;
    }
    this.compare();
    by("opacity-row").hidden = !(this.map && picture.corners);
    const key = `${this.state.id}/${number}`;
    if (this.map && this.laid !== key) {
      this.map.lay(picture.corners ? this.source(picture) : null, picture.corners, by("opacity").value / 100);
      this.laid = key;
    }
  }

  compare() {
    for (const [side, id] of [["left", "under"], ["right", "over"]]) {
      const image = by(id);
      const source = `${path(this.state.id)}/${by(side).value}.png`;
      if (image.getAttribute("src") !== source) { image.src = source; delete this.canvases[id]; }
      image.alt = by(side).selectedOptions[0]?.textContent ?? "";
    }
  }

  swipe(percent) {
    const at = Math.min(100, Math.max(0, percent));
    by("swipe").style.setProperty("--at", `${at}%`);
    by("swipe-at").value = at;
  }

  readPixel(event) {
    const box = by("under").getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width;
    const down = (event.clientY - box.top) / box.height;
    if (across < 0 || across >= 1 || down < 0 || down >= 1) return;
    const side = by("under").naturalWidth;
    const read = (id) => {
      const image = by(id);
      if (!image.complete || !image.naturalWidth) return "";
      if (!this.canvases[id]) {
        const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
        const context = canvas.getContext("2d", { willReadFrequently: true });
        context.drawImage(image, 0, 0);
        this.canvases[id] = context;
      }
      const x = Math.floor(across * image.naturalWidth);
      const y = Math.floor(down * image.naturalHeight);
      return [...this.canvases[id].getImageData(x, y, 1, 1).data.slice(0, 3)].join(" ");
    };
    const values = { x: Math.floor(across * side), y: Math.floor(down * by("under").naturalHeight), left: read("under"), right: read("over") };
    by("pixel").textContent = text("pixel", values);
  }

  showFiles(result) {
    const link = (href, words) => make("a", { href, download: true, text: words });
    by("files").replaceChildren(
      ...result.pictures.map((picture) => make("li", {},
        `${this.titleOf(picture.modality)}, ${kindOf(picture)}: `,
        link(`${path(this.state.id)}/pictures/${picture.number}.tif`, "GeoTIFF"), " · ",
        link(`${path(this.state.id)}/pictures/${picture.number}.png?download=true`, "PNG"))),
      ...result.documents.map((name, number) => make("li", {}, link(`${path(this.state.id)}/documents/${number}.json`, name))),
    );
  }

  async showScores() {
    const id = this.state.id;
    if (this.scores?.id !== id) {
      try {
        this.scores = { id, ...(await get(`${path(id)}/scores`)) };
      } catch { by("judge").hidden = true; return; }
      if (this.state.id !== id) return;
    }
    const { quantities, samples, notes } = this.scores;
    const keys = Object.keys(quantities);
    const head = keys.map((key) => make("th", { scope: "col", text: `${quantities[key].title}${quantities[key].unit ? ` (${quantities[key].unit})` : ""}`, title: text(quantities[key].better) }));
    by("scores").tHead.replaceChildren(make("tr", {}, make("th", { scope: "col", text: text("modality") }), ...head));
    by("scores").tBodies[0].replaceChildren(...samples.map((sample) => make("tr", {},
      make("th", { scope: "row", text: this.nameOf(sample) }),
      ...keys.map((key) => make("td", { text: sample.values[key]?.toFixed(3) ?? "–" })))));
    by("score-notes").textContent = notes.join(" ");
    this.plot(samples, keys[0], quantities[keys[0]]);
  }

  nameOf(sample) { return `${this.titleOf(sample.modality)}, ${text("sample", { number: sample.name.split("_v").pop() })}`; }

  plot(samples, key, quantity) {
    if (!key) { by("plot").replaceChildren(); return; }
    const svg = (tag, attributes, words) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (words) element.textContent = words;
      return element;
    };
    const most = Math.max(...samples.map((sample) => Math.abs(sample.values[key] ?? 0)), 1e-9);
    const row = 20;
    const label = `${quantity.title}${quantity.unit ? ` (${quantity.unit})` : ""}, ${text(quantity.better)}`;
    const picture = svg("svg", { viewBox: `0 0 460 ${row * samples.length + 18}`, role: "img", "aria-label": label });
    picture.append(svg("text", { x: 0, y: 11 }, label));
    samples.forEach((sample, number) => {
      const value = sample.values[key] ?? 0;
      const y = 18 + row * number;
      picture.append(svg("text", { x: 0, y: y + 13 }, this.nameOf(sample)));
      picture.append(svg("rect", { x: 210, y: y + 3, width: (190 * Math.abs(value)) / most, height: row - 7, rx: 2 }));
      picture.append(svg("text", { x: 216 + (190 * Math.abs(value)) / most, y: y + 13 }, value.toFixed(2)));
    });
    by("plot").replaceChildren(picture);
  }

  async copy(button) {
    const words = by(button.dataset.copy).textContent;
    try { await navigator.clipboard.writeText(words); } catch { getSelection().selectAllChildren(by(button.dataset.copy)); document.execCommand("copy"); }
    button.textContent = text("copied");
    setTimeout(() => { button.textContent = text("copy"); }, 1500);
  }
}
