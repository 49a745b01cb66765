// Exports objects to files.

import { outlines, signedArea, simplified } from "./contours.js";
import { greyPng } from "./png.js";

const SIMPLIFY_PX = 1;

const json = (value) => new Blob([JSON.stringify(value, null, 1)], { type: "application/json" });
const stem = (fileName) => fileName.replace(/\.[^.]*$/, "") || "image";
const slug = (name) => name.trim().toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-") || "object";

/** A grey PNG of the image's size: 255 inside, 0 outside. */
export async function maskPng(item, image) {
  const { mask } = item;
  return [await greyPng(mask.bytes(), mask.width, mask.height), `${stem(image.fileName)}-${slug(item.name)}-mask.png`];
}

/** A PNG of the object's pixels, cropped to its bounding box; everything else is transparent. */
export async function cutoutPng(item, image) {
  const { mask } = item;
  const [left, top, width, height] = mask.box;
  if (!width) throw new Error("The mask is empty: there is nothing to cut out.");
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.drawImage(image.bitmap, left, top, width, height, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  const inside = mask.bytes(1);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      pixels.data[(y * width + x) * 4 + 3] *= inside[(y + top) * mask.width + x + left];
    }
  }
  context.putImageData(pixels, 0, 0);
  return [await canvas.convertToBlob({ type: "image/png" }), `${stem(image.fileName)}-${slug(item.name)}.png`];
}

/** A COCO data set: a category for each object name, annotations with RLE, area, box and score. */
export async function coco(items, image) {
  const names = [...new Set(items.map((item) => item.name))];
  const annotations = items.map((item, index) => ({
    id: index + 1,
    image_id: 1,
    category_id: names.indexOf(item.name) + 1,
    segmentation: { size: [item.mask.height, item.mask.width], counts: item.mask.counts },
    area: item.mask.area,
    bbox: item.mask.box,
    iscrowd: 0,
    score: item.score,
  }));
  const dataset = {
    images: [{ id: 1, file_name: image.fileName, width: image.width, height: image.height }],
    categories: names.map((name, index) => ({ id: index + 1, name })),
    annotations,
  };
  return [json(dataset), `${stem(image.fileName)}-coco.json`];
}

/** A simplified outline, or the original if the simplified one would have no area. */
function polygon(line) {
  const short = simplified(line, SIMPLIFY_PX);
  return short.length > 2 && signedArea(short) * signedArea(line) > 0 ? short : line;
}

/** Outlines along pixel edges, simplified by at most a pixel; each has a non-zero area. */
export async function polygons(items, image) {
  const objects = items.map((item) => {
    const lines = outlines(item.mask).map((line) => ({ isHole: signedArea(line) < 0, line: polygon(line) }));
    const of = (hole) => lines.filter(({ isHole }) => isHole === hole).map(({ line }) => line);
    return { name: item.name, polygons: of(false), holes: of(true), score: item.score };
  });
  const { fileName, width, height } = image;
  return [json({ image: fileName, width, height, simplify_px: SIMPLIFY_PX, objects }), `${stem(fileName)}-polygons.json`];
}

/** Downloads a file. */
export function save([blob, name]) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
