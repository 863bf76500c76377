// The map: Natural Earth's land, a graticule, cells by split, patches, and a picture where it belongs. No other host.

import { isDark } from "./texts.js";

const EMPTY = { type: "FeatureCollection", features: [] };
const PALETTES = {
  light: { sea: "#dfe8ee", land: "#fafaf7", shore: "#8fa1ad", grid: "#c4d1da", train: "#2f6ca8", test: "#c7364f", downloaded: "#767f87", patch: "#1c2329", chosen: "#e08a00" },
  dark: { sea: "#10171c", land: "#263038", shore: "#5b6b77", grid: "#2b3740", train: "#6fa8dc", test: "#ff8196", downloaded: "#9aa4ad", patch: "#e8ecef", chosen: "#ffc14d" },
};
const palette = () => PALETTES[isDark() ? "dark" : "light"];

function graticule(every) {
  const features = [];
  const line = (coordinates) => features.push({ type: "Feature", properties: {}, geometry: { type: "LineString", coordinates } });
  for (let lon = -180; lon <= 180; lon += every) line([[lon, -85], [lon, 0], [lon, 85]]);
  for (let lat = -80; lat <= 80; lat += every) line([[-180, lat], [0, lat], [180, lat]]);
  return { type: "FeatureCollection", features };
}

const splitColour = (colours) =>
  ["match", ["get", "split"], "train", colours.train, "test", colours.test, colours.downloaded];

function paints(colours) {
  return {
    sea: { "background-color": colours.sea },
    land: { "fill-color": colours.land },
    grid: { "line-color": colours.grid, "line-width": 0.7 },
    shore: { "line-color": colours.shore, "line-width": 0.8 },
    cells: { "fill-color": splitColour(colours), "fill-opacity": 0.35 },
    "cells-edge": { "line-color": splitColour(colours), "line-width": 2 },
    "cells-far": { "circle-color": splitColour(colours), "circle-radius": 6, "circle-stroke-color": colours.land, "circle-stroke-width": 1.5 },
    patches: { "fill-color": colours.patch, "fill-opacity": 0.04 },
    "patches-edge": { "line-color": colours.patch, "line-width": 0.8 },
    chosen: { "line-color": colours.chosen, "line-width": 3 },
    box: { "fill-color": colours.chosen, "fill-opacity": 0.15 },
    "box-edge": { "line-color": colours.chosen, "line-width": 2, "line-dasharray": [2, 1] },
  };
}

function style() {
  const paint = paints(palette());
  const layer = (id, type, source, more = {}) => ({ id, type, source, paint: paint[id], ...more });
  return {
    version: 8,
    sources: {
      land: { type: "geojson", data: new URL("vendor/land.json", import.meta.url).href, attribution: "Natural Earth" },
      grid: { type: "geojson", data: graticule(10) },
      cells: { type: "geojson", data: EMPTY },
      centres: { type: "geojson", data: EMPTY },
      patches: { type: "geojson", data: EMPTY },
      chosen: { type: "geojson", data: EMPTY },
      box: { type: "geojson", data: EMPTY },
    },
    layers: [
      { id: "sea", type: "background", paint: paint.sea },
      layer("land", "fill", "land"),
      layer("grid", "line", "grid"),
      layer("shore", "line", "land"),
      layer("cells", "fill", "cells"),
      layer("cells-edge", "line", "cells"),
      layer("cells-far", "circle", "centres", { maxzoom: 7 }),
      layer("patches", "fill", "patches", { minzoom: 7 }),
      layer("patches-edge", "line", "patches", { minzoom: 7 }),
      layer("chosen", "line", "chosen"),
      layer("box", "fill", "box"),
      layer("box-edge", "line", "box"),
    ],
  };
}

const boundsOf = (collection) => {
  const points = collection.features.flatMap((one) => one.geometry?.coordinates[0] ?? []);
  if (!points.length) return null;
  const lon = points.map((p) => p[0]);
  const lat = points.map((p) => p[1]);
  return [[Math.min(...lon), Math.min(...lat)], [Math.max(...lon), Math.max(...lat)]];
};

const centresOf = (collection) => ({
  type: "FeatureCollection",
  features: collection.features.filter((one) => one.geometry).map((one) => {
    const ring = one.geometry.coordinates[0].slice(0, 4);
    const coordinates = [0, 1].map((axis) => ring.reduce((sum, point) => sum + point[axis], 0) / 4);
    return { ...one, geometry: { type: "Point", coordinates } };
  }),
});

const polygonOf = ([west, south, east, north]) =>
  ({ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates: [[[west, south], [east, south], [east, north], [west, north], [west, south]]] } });

/** Shares of width and height at which a point lies in a picture of four corners; null beside it. */
function sharesOf({ lng, lat }, [[x, y], [right, rightY], , [left, leftY]]) {
  const [ax, ay, bx, by] = [right - x, rightY - y, left - x, leftY - y];
  const area = ax * by - bx * ay;
  const across = ((lng - x) * by - (lat - y) * bx) / area;
  const down = ((lat - y) * ax - (lng - x) * ay) / area;
  return across >= 0 && across < 1 && down >= 0 && down < 1 ? [across, down] : null;
}

/** The stylesheet comes with the map, so that the page is there before it. */
const dress = () => new Promise((done) => {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("vendor/maplibre-gl.css", import.meta.url).href });
  link.onload = link.onerror = done;
  document.head.prepend(link);
});

/**
 * A map that calls `cell` and `patch` with the names that are clicked, `box` with west, south, east and north of what is
 * drawn, and `point` with the shares of a laid picture that the pointer is at; null where the browser draws none.
 */
export async function setUpMap({ cell, patch, box, point }) {
  let map;
  try {
    await dress();
    const maplibre = await import("./vendor/maplibre-gl.js");
    maplibre.setWorkerUrl(new URL("vendor/maplibre-gl-worker.js", import.meta.url).href);
    map = new maplibre.Map({ container: "map", style: style(), center: [10, 30], zoom: 1, attributionControl: { compact: true }, dragRotate: false, pitchWithRotate: false });
    map.addControl(new maplibre.NavigationControl({ showCompass: false }), "top-right");
    map.addControl(new maplibre.ScaleControl(), "bottom-left");
    map.touchZoomRotate.disableRotation();
  } catch {
    return null;
  }
  await new Promise((done) => map.once("load", done));
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches || navigator.webdriver;
  const see = (bounds, most) => bounds && map.fitBounds(bounds, { padding: 40, maxZoom: most, animate: !still, duration: 600 });
  let drawing = null; // a box: null, or where it begins
  let laid = null; // corners of the picture
  for (const name of ["cells", "cells-far"]) {
    map.on("click", name, (event) => {
      if (drawing) return;
      if (map.queryRenderedFeatures(event.point, { layers: ["patches"] }).length) return;
      cell(event.features[0].properties.cell);
    });
  }
  map.on("click", "patches", (event) => { if (!drawing) patch(event.features[0].properties.patch); });
  const boxTo = ({ lngLat: { lng, lat } }) => {
    const round = (value) => Math.round(value * 1e6) / 1e6;
    const [x, y] = drawing.from;
    return [Math.min(x, lng), Math.min(y, lat), Math.max(x, lng), Math.max(y, lat)].map(round);
  };
  for (const name of ["mousedown", "touchstart"]) {
    map.on(name, (event) => {
      if (!drawing) return;
      event.preventDefault(); // the map stays where it is
      drawing.from = [event.lngLat.lng, event.lngLat.lat];
    });
  }
  for (const name of ["mousemove", "touchmove"]) {
    map.on(name, (event) => {
      if (drawing?.from) map.getSource("box").setData(polygonOf(boxTo(event)));
      else if (laid) point(sharesOf(event.lngLat, laid));
    });
  }
  for (const name of ["mouseup", "touchend"]) {
    map.on(name, (event) => {
      if (!drawing?.from) return;
      const edges = boxTo(event);
      setTimeout(() => { drawing = null; }); // the click that follows is still of the box
      map.getCanvas().style.cursor = "";
      box(edges);
    });
  }
  for (const name of ["cells", "cells-far", "patches"]) {
    map.on("mouseenter", name, () => { map.getCanvas().style.cursor = "pointer"; });
    map.on("mouseleave", name, () => { map.getCanvas().style.cursor = ""; });
  }
  return {
    map,
    showCells(collection) {
      map.getSource("cells").setData(collection);
      map.getSource("centres").setData(centresOf(collection));
      this.showPatches(EMPTY);
      see(boundsOf(collection), 9);
    },
    showPatches(collection) {
      map.getSource("patches").setData(collection);
      map.getSource("chosen").setData(EMPTY);
      this.lay(null);
      if (collection.features.length) see(boundsOf(collection), 12);
    },
    choose(feature) {
      map.getSource("chosen").setData(feature ?? EMPTY);
      map.getSource("box").setData(EMPTY);
    },
    /** Have the next drag draw a box instead of moving the map. */
    startBox(is) {
      drawing = is ? { from: null } : null;
      map.getCanvas().style.cursor = is ? "crosshair" : "";
    },
    showBox(edges) {
      map.getSource("chosen").setData(EMPTY);
      map.getSource("box").setData(polygonOf(edges));
    },
    /** Put a picture on the ground, below the outlines; null takes it away. */
    lay(url, corners, opacity = 1) {
      laid = url ? corners : null;
      this.veil(null);
      if (map.getLayer("picture")) map.removeLayer("picture");
      if (map.getSource("picture")) map.removeSource("picture");
      if (!url) return;
      map.addSource("picture", { type: "image", url, coordinates: corners });
      map.addLayer({ id: "picture", type: "raster", source: "picture", paint: { "raster-opacity": opacity, "raster-fade-duration": 0 } }, "patches");
      const lon = corners.map((c) => c[0]);
      const lat = corners.map((c) => c[1]);
      see([[Math.min(...lon), Math.min(...lat)], [Math.max(...lon), Math.max(...lat)]], 14);
    },
    /** Put a canvas over the picture; null takes it away. */
    veil(canvas, corners) {
      if (map.getLayer("veil")) map.removeLayer("veil");
      if (map.getSource("veil")) map.removeSource("veil");
      if (!canvas) return;
      map.addSource("veil", { type: "canvas", canvas, coordinates: corners, animate: false });
      map.addLayer({ id: "veil", type: "raster", source: "veil", paint: { "raster-fade-duration": 0 } }, "patches");
    },
    opacity(value) {
      if (map.getLayer("picture")) map.setPaintProperty("picture", "raster-opacity", value);
    },
    restyle() {
      for (const [id, paint] of Object.entries(paints(palette())))
        for (const [name, value] of Object.entries(paint)) map.setPaintProperty(id, name, value);
    },
  };
}
