// Copies MapLibre GL, and Natural Earth's land as GeoJSON, to where the page is served from.
//   npm ci && npm run build
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { feature } from "topojson-client";

const require = createRequire(import.meta.url);
const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "copgen_cli", "studio", "page", "vendor");
mkdirSync(out, { recursive: true });

const maplibre = join(here, "node_modules", "maplibre-gl");
for (const name of ["maplibre-gl", "maplibre-gl-worker"]) {
  const code = readFileSync(join(maplibre, "dist", `${name}.mjs`), "utf8");
  // .js, which every server knows to be a script; without the pointer to a source map that is not shipped
  writeFileSync(join(out, `${name}.js`), code.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n"));
}
copyFileSync(join(maplibre, "dist", "maplibre-gl.css"), join(out, "maplibre-gl.css"));
copyFileSync(join(maplibre, "LICENSE.txt"), join(out, "maplibre-gl.LICENSE.txt"));

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
  "maplibre-gl*: MapLibre GL JS 6.17.0, BSD-3-Clause (maplibre-gl.LICENSE.txt).\n" +
    "land.json: Natural Earth 1:110m land, public domain (naturalearthdata.com), by world-atlas 2.0.2.\n" +
    "Made by studio-page/build.mjs.\n",
);
