// Copies MapLibre GL, and Natural Earth's land as GeoJSON, to where the page is served from.
//   npm ci && npm run build
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { feature } from "topojson-client";

const require = createRequire(import.meta.url);
const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "copgen_cli", "studio", "page", "vendor");
mkdirSync(out, { recursive: true });

const packages = join(here, "node_modules");
const about = (name) => JSON.parse(readFileSync(join(packages, name, "package.json"), "utf8"));
const maplibre = join(packages, "maplibre-gl");
const bundled = new Set(); // packages whose code is in MapLibre's files, as their source maps tell
for (const name of ["maplibre-gl", "maplibre-gl-worker"]) {
  const { sources } = JSON.parse(readFileSync(join(maplibre, "dist", `${name}.mjs.map`), "utf8"));
  for (const source of sources) bundled.add(source.match(/node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]);
  const code = readFileSync(join(maplibre, "dist", `${name}.mjs`), "utf8");
  // .js, which every server knows to be a script; without the pointer to a source map that is not shipped
  writeFileSync(join(out, `${name}.js`), code.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"));
}
copyFileSync(join(maplibre, "dist", "maplibre-gl.css"), join(out, "maplibre-gl.css"));
copyFileSync(join(maplibre, "LICENSE.txt"), join(out, "maplibre-gl.LICENSE.txt"));

// Their licences ask for their notices to come along. .ci/held.py reads the headings.
const notice = (name) => {
  const file = readdirSync(join(packages, name)).find((found) => /^licen[cs]e/i.test(found));
  if (file) return readFileSync(join(packages, name, file), "utf8");
  const [, text] = readFileSync(join(packages, name, "README.md"), "utf8").split(/^## License.*$/m);
  if (!text) throw new Error(`${name} has no text of its licence`);
  return text;
};
bundled.delete(undefined); // MapLibre's own
const notices = [...bundled].sort().map((name) => {
  const { version, license } = about(name);
  return `# ${name} ${version}: ${license.replace(/[()]/g, "")}\n\n${notice(name).trim()}\n`;
});
writeFileSync(join(out, "maplibre-gl.BUNDLED-LICENSES.txt"), notices.join("\n\n"));

const world = require("world-atlas/land-110m.json");
const land = feature(world, world.objects.land);
// Its rings run over the antimeridian, as on a sphere; on a flat map they go on beyond 180 degrees instead.
const unrolled = (ring) => {
  let turn = 0;
  const points = ring.map(([lon, lat], i) => {
    if (i > 0) turn -= 360 * Math.round((lon - ring[i - 1][0]) / 360);
    return [lon + turn, lat];
  });
  if (turn === 0) return points;
  const [first, last] = [points[0], points.at(-1)]; // around the South Pole
  return [...points, [last[0], -90], [first[0], -90], first];
};
for (const { geometry } of land.features) {
  geometry.coordinates = geometry.coordinates.map((polygon) => polygon.map(unrolled));
}
const rounded = JSON.stringify(land, (_, value) => (typeof value === "number" ? Math.round(value * 100) / 100 : value));
writeFileSync(join(out, "land.json"), rounded);
writeFileSync(
  join(out, "README.txt"),
  `maplibre-gl*: MapLibre GL JS ${about("maplibre-gl").version}, BSD-3-Clause (maplibre-gl.LICENSE.txt), and what is built into it\n` +
    "(maplibre-gl.BUNDLED-LICENSES.txt).\n" +
    `land.json: Natural Earth 1:110m land, public domain (naturalearthdata.com), by world-atlas ${about("world-atlas").version}.\n` +
    "Made by studio-page/build.mjs.\n",
);
