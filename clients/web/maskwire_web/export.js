// Exports objects to files.

import * as annotations from "./annotations.js";
import { outlines, pathOf } from "./contours.js";
import { greyPng } from "./png.js";
import { zip } from "./zip.js";

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

/** The picture with objects drawn over it as on the stage: filled, with their outlines. A PNG of the picture's size. */
export async function overlayPng(items, image, opacity) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // the background that the server puts under transparent images
  context.fillRect(0, 0, image.width, image.height);
  context.drawImage(image.bitmap, 0, 0);
  context.lineWidth = Math.max(1, Math.round(Math.max(image.width, image.height) / 500));
  for (const { mask, colour } of items) {
    const path = pathOf(outlines(mask));
    context.fillStyle = context.strokeStyle = colour;
    context.globalAlpha = opacity;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
    context.stroke(path);
  }
  return [await canvas.convertToBlob({ type: "image/png" }), `${stem(image.fileName)}-overlay.png`];
}

/** A file of annotations of one image, which a function of annotations.js makes. */
export async function annotationFile(kind, items, image) {
  const described = { fileName: image.fileName, width: image.width, height: image.height, items };
  const name = stem(image.fileName);
  if (kind === "coco") return [json(annotations.coco([described])), `${name}-coco.json`];
  if (kind === "polygons") return [json(annotations.polygons(described)), `${name}-polygons.json`];
  if (kind === "labelme") return [json(await annotations.labelme(described)), `${name}.json`];
  return [new Blob([annotations.yolo(described, annotations.categories([described]))]), `${name}.txt`];
}

/**
 * All annotations in a ZIP archive: COCO (one file for all images), YOLO, labelme, and a mask for each object.
 *
 * @param images [{fileName, width, height, items}, ...]
 */
export async function archive(images) {
  const files = [["coco.json", json(annotations.coco(images))]];
  const names = annotations.categories(images);
  files.push(["yolo/data.yaml", new Blob([annotations.yoloNames(names)])]);
  const stems = new Set();
  for (const image of images) {
    let name = stem(image.fileName);
    for (let number = 2; stems.has(name); number++) name = `${stem(image.fileName)}-${number}`; // another folder's
    stems.add(name);
    files.push([`yolo/labels/${name}.txt`, new Blob([annotations.yolo(image, names)])]);
    files.push([`labelme/${name}.json`, json(await annotations.labelme(image))]);
    for (const [index, { mask, title }] of image.items.entries()) {
      files.push([`masks/${name}-${index + 1}-${slug(title)}.png`, await greyPng(mask.bytes(), mask.width, mask.height)]);
    }
  }
  return [await zip(files), "annotations.zip"];
}

/** Downloads a file. */
export function save([blob, name]) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
