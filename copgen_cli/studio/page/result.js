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

const VEIL = [216, 27, 96];

/** The values of a pixel in words, such as `red 12, green 40, blue 7`, `412.3 m` or `Grassland`. */
function valuesOf({ bands, values, unit, meaning }) {
  if (meaning) return meaning;
  const told = values.map((value) => (value === null ? "–" : Number.isInteger(value) ? String(value) : value.toPrecision(4)));
  return `${told.length === 1 ? told[0] : told.map((value, number) => `${bands[number]} ${value}`).join(", ")}${unit && ` ${unit}`}`;
}

export class ResultView {
  /** @param titleOf modality to its title */
  constructor(titleOf) {
    this.titleOf = titleOf;
    this.map = null;
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
    by("deviation").addEventListener("change", () => this.layDeviation());
    this.point = null; // where values are asked for, until they are there
  }

  /** The map comes later than all else, or never. */
  setMap(map) {
    this.map = map;
    if (this.state?.state === "done") this.choose(this.chosen, false);
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
    else {
      for (const id of ["opacity-row", "deviation-row", "map-pixel"]) by(id).hidden = true;
      if (fresh) this.map?.lay(null);
    }
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
    if (this.map && (byHand || this.laid !== key)) {
      this.map.lay(picture.corners ? this.source(picture) : null, picture.corners, by("opacity").value / 100);
      this.laid = key;
      this.layDeviation();
    }
    by("deviation-row").hidden = by("opacity-row").hidden || !this.deviationOf(picture);
  }

  deviationOf({ modality }) { return this.state.result.pictures.find((one) => one.kind === "std" && one.modality === modality); }

  /** Where the samples differ, as a veil over the picture on the map: the more, the thicker. */
  async layDeviation() {
    this.map?.veil(null);
    const key = this.laid;
    const deviation = by("deviation").checked && this.deviationOf(this.state.result.pictures[this.chosen]);
    if (!deviation || !this.map) return;
    const image = new Image();
    image.src = this.source(deviation);
    try { await image.decode(); } catch { return; }
    if (this.laid !== key || !by("deviation").checked) return;
    const canvas = make("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const alpha = pixels.data[at + 3] && pixels.data[at];
      pixels.data.set([VEIL[0], VEIL[1], VEIL[2], alpha], at);
    }
    context.putImageData(pixels, 0, 0);
    this.map.veil(canvas, deviation.corners);
  }

  compare() {
    for (const [side, id] of [["left", "under"], ["right", "over"]]) {
      const image = by(id);
      const source = `${path(this.state.id)}/${by(side).value}.png`;
      if (image.getAttribute("src") !== source) image.src = source;
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
    this.readValues("pixel", [by("left").value, by("right").value], across, down);
  }

  /** Of the picture on the map. */
  readMapPixel(shares) {
    by("map-pixel").hidden = !shares;
    if (shares) this.readValues("map-pixel", [`pictures/${this.chosen}`], ...shares);
  }

  /** What pictures hold at a point; of the points that come while an answer is awaited, the last is asked for. */
  async readValues(place, names, across, down) {
    const busy = this.point;
    this.point = { place, names, across, down };
    if (busy) return;
    const id = this.state.id;
    try {
      while (this.point && this.state.id === id) {
        const asked = this.point;
        const query = new URLSearchParams([...asked.names.map((name) => ["of", name]), ["across", asked.across], ["down", asked.down]]);
        const [left, right] = await get(`${path(id)}/values?${query}`);
        const words = { x: left.column, y: left.row, left: valuesOf(left), right: right && valuesOf(right) };
        by(asked.place).textContent = text(right ? "pixel" : "pixel_of_one", words);
        if (this.point === asked) this.point = null;
      }
    } catch { /* the page says it elsewhere */ } finally { this.point = null; }
  }

  showFiles(result) {
    const link = (href, words) => make("a", { href, download: true, text: words });
    by("files").replaceChildren(
      ...result.pictures.map((picture) => make("li", {},
        `${this.titleOf(picture.modality)}, ${kindOf(picture)}: `,
        link(`${path(this.state.id)}/pictures/${picture.number}.tif`, "GeoTIFF"), " · ",
        link(`${path(this.state.id)}/pictures/${picture.number}.png?download=true`, "PNG"),
        ...(picture.corners ? [" · ", link(`${path(this.state.id)}/pictures/${picture.number}.json`, "STAC")] : []))),
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
