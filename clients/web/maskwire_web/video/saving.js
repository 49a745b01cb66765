// Masks of a clip as files, in the forms that `Track.save` of the Python client writes.

import { indexedPng } from "../png.js";
import { Mask } from "../rle.js";
import { zip } from "../zip.js";

const MOST_NUMBERED = 255;

/** A file's name without its ending. */
export const stem = (name) => name.replace(/\.[^.]*$/, "") || "clip";

/** Names of the objects, made different from one another. */
function named(items) {
  const taken = new Set();
  return items.map((item) => {
    let name = item.name;
    for (let number = 2; taken.has(name); number++) name = `${item.name} ${number}`;
    taken.add(name);
    return [name, item];
  });
}

/** A data set in the form of YouTube-VIS: for each object and frame an RLE, a box and an area, or null. */
export function youtubeVis(items, clip) {
  const { width, height, length } = clip;
  const objects = named(items);
  const annotations = objects.map(([name, item], index) => {
    const masks = clip.frames.map((_, frame) => {
      const seen = item.found.get(frame);
      return seen && !seen.isEmpty ? new Mask(seen.rle) : null;
    });
    return {
      id: index + 1,
      video_id: 1,
      category_id: index + 1,
      object: name,
      segmentations: masks.map((mask) => mask && { size: [mask.height, mask.width], counts: mask.counts }),
      bboxes: masks.map((mask) => mask && mask.box),
      areas: masks.map((mask) => mask && mask.area),
      width,
      height,
      length,
      iscrowd: 0,
    };
  });
  const video = {
    id: 1,
    width,
    height,
    length,
    file_names: clip.frames.map(({ name }) => name),
    times_s: clip.frames.map(({ time_s }) => Math.round(time_s * 1e6) / 1e6),
  };
  const dataset = {
    info: { description: "Masks are compressed RLE, as pycocotools reads it; null: not there" },
    videos: [video],
    categories: objects.map(([name], index) => ({ id: index + 1, name })),
    annotations,
  };
  return [new Blob([JSON.stringify(dataset)], { type: "application/json" }), `${stem(clip.name)}-masks.json`];
}

/**
 * A ZIP with a picture of object numbers for each frame, as DAVIS has them, and their names in objects.json.
 *
 * @param progress called with the fraction done
 */
export async function davis(items, clip, progress) {
  if (items.length > MOST_NUMBERED) throw new Error(`${items.length} objects do not fit into pictures of object numbers, which end at ${MOST_NUMBERED}.`);
  const objects = named(items);
  const names = Object.fromEntries(objects.map(([name], index) => [index + 1, name]));
  const files = [["objects.json", new Blob([`${JSON.stringify(names)}\n`])]];
  for (let frame = 0; frame < clip.length; frame++) {
    const numbers = new Uint8Array(clip.width * clip.height);
    for (let number = items.length; number; number--) { // where masks overlap, the lowest number is on top
      const seen = items[number - 1].found.get(frame);
      if (seen && !seen.isEmpty) fill(numbers, new Mask(seen.rle), number);
    }
    files.push([`${String(frame).padStart(5, "0")}.png`, await indexedPng(numbers, clip.width, clip.height, PALETTE)]);
    progress((frame + 1) / clip.length);
  }
  return [await zip(files), `${stem(clip.name)}-masks.zip`];
}

function fill(numbers, mask, number) {
  mask.columns.forEach((column, x) => {
    for (let i = 0; i < column.length; i += 2) {
      for (let y = column[i]; y < column[i + 1]; y++) numbers[y * mask.width + x] = number;
    }
  });
}

/** The colours of DAVIS and Pascal VOC: bits of the number, dealt out to red, green and blue. */
const PALETTE = Array.from({ length: 256 }, (_, number) =>
  [0, 1, 2].map((channel) => {
    let value = 0;
    for (let place = 0; place < 3; place++) value += ((number >> (3 * place + channel)) & 1) << (7 - place);
    return value;
  }),
).flat();
