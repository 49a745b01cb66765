// Answers an object's steps again in a part of the picture around them, which the model sees at its full resolution.

import { Mask } from "./rle.js";

// As in maskwire/regions.py:
const FILLED = 0.5; // largest share of a region's side that the prompt takes
const LEAST_PX = 192; // a smaller region would be enlarged more than the model has ever seen
const MOST = 0.7; // share of the picture's longer side from which on a region shows little more than the picture
const STEPS = 8; // regions of a size lie so many to a side, so that prompts near one another share one

/**
 * Chooses the region for a prompt: a square around it, at least as long as what is seen.
 *
 * @param prompt {points, box}; not empty
 * @param seen longer side of what is seen of the picture, in its pixels
 * @returns [left, top, right, bottom], or null where the picture does as well
 */
export function chooseRegion(width, height, { points, box }, seen) {
  const xs = points.map(({ x_px = 0 }) => x_px);
  const ys = points.map(({ y_px = 0 }) => y_px);
  if (box) {
    xs.push(box.x_min_px ?? 0, box.x_max_px ?? 0);
    ys.push(box.y_min_px ?? 0, box.y_max_px ?? 0);
  }
  const [low, high] = [[Math.min(...xs), Math.min(...ys)], [Math.max(...xs), Math.max(...ys)]];
  const needed = Math.max((high[0] - low[0]) / FILLED, (high[1] - low[1]) / FILLED, seen, LEAST_PX);
  const side = Math.round(LEAST_PX * 2 ** (Math.ceil(2 * Math.log2(needed / LEAST_PX) - 1e-9) / 2));
  if (side > MOST * Math.max(width, height)) return null;
  const [left, top] = [width, height].map((length, axis) => {
    const start = Math.round((((low[axis] + high[axis]) / 2 - side / 2) * STEPS) / side) * (side / STEPS);
    return Math.max(0, Math.min(Math.round(start), length - side));
  });
  return [left, top, Math.min(left + side, width), Math.min(top + side, height)];
}

export class Sharpening {
  constructor(api) {
    this._api = api;
    this._of = ""; // content key of the image whose regions are known
    this._regions = new Map(); // place, as text -> promise of the region's ImageInfo
  }

  /**
   * Resolves to a SegmentResponse, or to null where the picture does as well or the object goes on beyond the region.
   *
   * @param picture Picture
   * @param image its ImageInfo
   * @param prompt {prompt_id, steps}
   * @param extent {points, box} of the steps
   * @param seen as in chooseRegion
   */
  async segment(picture, image, prompt, extent, seen) {
    const place = chooseRegion(picture.width, picture.height, extent, seen);
    if (!place) return null;
    let answer;
    try {
      answer = await this._ask(picture, image, place, prompt);
    } catch (error) {
      if (error.status !== 404) throw error; // else the store lost the region
      this._regions.delete(place.join());
      answer = await this._ask(picture, image, place, prompt);
    }
    return liesWithin(new Mask(answer.results[0].masks[0].rle), place) ? answer : null;
  }

  async _ask(picture, image, place, prompt) {
    const region = await this._embedded(picture, image, place);
    const { image_id, content_key, namespace, model } = region;
    return this._api.segment(image_id, { content_key, namespace, model, prompts: [prompt], formats: ["rle"] });
  }

  _embedded(picture, image, place) {
    if (this._of !== image.content_key) {
      this._of = image.content_key;
      this._regions.clear();
    }
    const key = place.join();
    if (!this._regions.has(key)) {
      const stored = this._store(picture, image, place);
      this._regions.set(key, stored);
      stored.catch(() => this._regions.get(key) === stored && this._regions.delete(key));
    }
    return this._regions.get(key);
  }

  async _store(picture, image, place) {
    const { image_id, model, content_key } = image;
    const header = { image_id, model, region: place.join(), region_of: content_key };
    return (await this._api.upload(await picture.part(place), header, () => false)).image;
  }
}

/** Whether a mask ends before the region does, except where the picture ends. */
function liesWithin(mask, [left, top, right, bottom]) {
  const [x, y, width, height] = mask.box;
  return (
    width > 0 &&
    (left === 0 || x > left) &&
    (top === 0 || y > top) &&
    (right === mask.width || x + width < right) &&
    (bottom === mask.height || y + height < bottom)
  );
}
