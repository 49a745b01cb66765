// Objects as labelling tools and trainers read them. An image is {fileName, width, height, items}, with a mask in each item.

import { outlines, signedArea, simplified } from "./contours.js";
import { greyPng } from "./png.js";

const SIMPLIFY_PX = 1;
const HOLES = 0.01; // share of an object that holes may be, for labelme to get polygons, which fill them

/** The classes of objects: their labels, or their names where they have none. */
export function categories(images) {
  return [...new Set(images.flatMap(({ items }) => items.map(category)))];
}

const category = ({ label, name }) => label || name;

/** A COCO data set: a category for each class, annotations with RLE, area, box and score. */
export function coco(images) {
  const names = categories(images);
  const annotations = images.flatMap(({ items }, index) =>
    items.map((item) => ({
      image_id: index + 1,
      category_id: names.indexOf(category(item)) + 1,
      segmentation: { size: [item.mask.height, item.mask.width], counts: item.mask.counts },
      area: item.mask.area,
      bbox: item.mask.box,
      iscrowd: 0,
      score: item.score,
    })),
  );
  return {
    images: images.map(({ fileName, width, height }, index) => ({ id: index + 1, file_name: fileName, width, height })),
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations: annotations.map((annotation, index) => ({ id: index + 1, ...annotation })),
  };
}

/** Outlines along pixel edges, simplified by at most a pixel; each has a non-zero area. */
function rings(mask) {
  return outlines(mask).map((line) => ({ isHole: signedArea(line) < 0, area: Math.abs(signedArea(line)) / 2, line: short(line) }));
}

/** A simplified outline, or the original if the simplified one would have no area. */
function short(line) {
  const found = simplified(line, SIMPLIFY_PX);
  return found.length > 2 && signedArea(found) * signedArea(line) > 0 ? found : line;
}

/** The polygons of each object, and its holes. */
export function polygons({ fileName, width, height, items }) {
  const objects = items.map((item) => {
    const found = rings(item.mask);
    const of = (hole) => found.filter(({ isHole }) => isHole === hole).map(({ line }) => line);
    return { name: item.name, ...(item.label ? { label: item.label } : {}), polygons: of(false), holes: of(true), score: item.score };
  });
  return { image: fileName, width, height, simplify_px: SIMPLIFY_PX, objects };
}

/**
 * A YOLO segmentation file: a line for each object, with one polygon, in which other parts and holes are joined to the first
 * by bridges of no width.
 *
 * @param names of the classes, whose places are their numbers
 */
export function yolo({ width, height, items }, names) {
  const lines = items.map((item) => {
    const [first, ...others] = rings(item.mask).map(({ line }) => line);
    if (!first) return "";
    const joined = others.reduce(bridged, first);
    const fractions = joined.flatMap(([x, y]) => [x / width, y / height]).map((value) => value.toFixed(6));
    return `${names.indexOf(category(item))} ${fractions.join(" ")}\n`;
  });
  return lines.join("");
}

/** The file that tells YOLO the names of classes. */
export const yoloNames = (names) => `names:\n${names.map((name, index) => `  ${index}: ${JSON.stringify(name)}\n`).join("")}`;

/** Joins a ring to another where they are nearest. */
function bridged(line, ring) {
  let [here, there, least] = [0, 0, Infinity];
  line.forEach(([x, y], i) =>
    ring.forEach(([otherX, otherY], j) => {
      const far = (x - otherX) ** 2 + (y - otherY) ** 2;
      if (far < least) [here, there, least] = [i, j, far];
    }),
  );
  return [...line.slice(0, here + 1), ...ring.slice(there), ...ring.slice(0, there + 1), ...line.slice(here)];
}

/** labelme's file: polygons, or a mask (from labelme 5.4 on) of an object with holes. */
export async function labelme({ fileName, width, height, items }) {
  const shapes = await Promise.all(items.map((item, index) => shapesOf(item, index + 1)));
  return { version: "5.5.0", flags: {}, shapes: shapes.flat(), imagePath: fileName, imageData: null, imageHeight: height, imageWidth: width };
}

async function shapesOf(item, group) {
  const shape = (shape_type, points, mask = null) => ({ label: category(item), points, group_id: group, description: "", shape_type, flags: {}, mask });
  const found = rings(item.mask);
  const holes = found.reduce((sum, { isHole, area }) => sum + (isHole ? area : 0), 0);
  if (holes <= HOLES * item.mask.area) return found.filter(({ isHole }) => !isHole).map(({ line }) => shape("polygon", line));
  const [x, y, width, height] = item.mask.box;
  const png = await greyPng(item.mask.within(item.mask.box), width, height);
  return [shape("mask", [[x, y], [x + width - 1, y + height - 1]], await base64(png))];
}

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}
