// Automatic masks ("Everything"): all masks of an image as they are found, of which the user keeps some.

import { Mask } from "./rle.js";

const LAYER_PIXELS = 2e6; // the layer with all masks is scaled down to this size
const AT_LEAST = 10; // masks to show, by lowering the minimum score if none passes it
const ALPHA = 130;

/** A colour for each number, distinct for consecutive ones; little-endian RGBA. */
function colour(number) {
  const hue = (number * 137.508) % 360;
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (0.58 - 0.36 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return ((ALPHA << 24) | (channel(4) << 16) | (channel(8) << 8) | channel(0)) >>> 0;
}

/** Fires "change" when masks appear or disappear, and at the end. */
export class AutomaticMasks extends EventTarget {
  constructor() {
    super();
    this.clear();
  }

  /** null, or {state: "running" | "done", done, total} in clicks. */
  get progress() {
    return this._progress;
  }

  /** The current masks with scores above minScore, in the server's order. */
  get found() {
    return [...this._masks.values()].filter((mask) => mask.stays && mask.score > this.minScore);
  }

  /** The topmost mask at a point of the image. */
  at(x, y) {
    if (!this.layer) return null;
    const [column, row] = [Math.floor(x * this._scale), Math.floor(y * this._scale)];
    if (column < 0 || row < 0 || column >= this.layer.width || row >= this.layer.height) return null;
    return this._masks.get(this._numbers[row * this.layer.width + column] - 1) ?? null;
  }

  /**
   * Finds the masks of an image. Rejects with ApiError, but not if cancelled.
   *
   * @param image its ImageInfo
   * @param settings {pointsPerSide, stability}: clicks along each side, and the lowest stability score
   */
  async run(api, image, settings, minScore) {
    this.clear();
    this.minScore = minScore;
    this.settings = settings;
    const { pointsPerSide, stability } = settings;
    const aborter = (this._aborter = new AbortController());
    this._progress = { state: "running", done: 0, total: pointsPerSide ** 2 };
    this._begin(image);
    // No minimum score: which of two overlapping masks survives does not depend on it, so that the user can choose it
    // afterwards.
    const request = {
      content_key: image.content_key,
      grid: { points_per_side: pointsPerSide },
      points_per_batch: 32,
      pred_iou_thresh: 0,
      stability_score_thresh: stability,
    };
    try {
      for await (const response of api.masks(image.image_id, request, aborter.signal)) {
        if (aborter !== this._aborter) return;
        this._take(response);
      }
      this._finish();
    } catch (error) {
      if (aborter !== this._aborter) return;
      this.clear();
      if (error.name !== "AbortError") throw error;
    }
  }

  /** Stops the search; masks found so far stay. */
  stop() {
    this._aborter?.abort();
    this._aborter = null;
    this._finish();
  }

  /** Removes all masks. */
  clear() {
    this._aborter?.abort();
    this._aborter = null;
    this._masks = new Map();
    this._progress = null;
    this.layer = null;
    this.minScore = 0;
    this.dispatchEvent(new Event("change"));
  }

  /** Properties of objects for found masks; `generated` has what the SDK needs to reproduce them. */
  items(masks) {
    const { found, minScore } = this;
    return masks.map((one) => {
      const generated = { ...this.settings, minScore, index: found.indexOf(one), point: one.point };
      return { mask: one.mask, score: one.score, generated };
    });
  }

  setMinScore(score) {
    this.minScore = score;
    this._paint();
  }

  _begin({ width_px, height_px }) {
    this._scale = Math.min(1, Math.sqrt(LAYER_PIXELS / (width_px * height_px)));
    this.layer = document.createElement("canvas");
    this.layer.width = Math.max(1, Math.floor(width_px * this._scale));
    this.layer.height = Math.max(1, Math.floor(height_px * this._scale));
    this._paint();
  }

  _take({ found = [], dropped = [], revived = [], kept = [], is_last, points_done, points_total }) {
    for (const { number = 0, rle, predicted_iou, point } of found) {
      const mask = new Mask(rle);
      this._masks.set(number, { number, mask, area: mask.area, score: predicted_iou ?? 0, point, stays: true });
    }
    for (const number of dropped) this._masks.get(number).stays = false;
    for (const number of revived) this._masks.get(number).stays = true;
    if (is_last) {
      this._masks = new Map(kept.map((number) => [number, this._masks.get(number)]));
      for (const mask of this._masks.values()) mask.stays = true;
    }
    this._progress = { state: "running", done: points_done ?? 0, total: points_total ?? 0 };
    this._paint();
  }

  _finish() {
    if (!this._progress) return;
    this._progress = { ...this._progress, state: "done" };
    const scores = [...this._masks.values()].filter((mask) => mask.stays).map((mask) => mask.score);
    scores.sort((a, b) => b - a);
    if (!scores.some((score) => score > this.minScore)) {
      const least = scores[Math.min(AT_LEAST, scores.length) - 1] ?? 0;
      this.minScore = Math.max(0, Math.floor(least * 100 - 1) / 100);
    }
    this._paint();
  }

  /** Draws the current masks, small ones over large ones, and records which one is on top of each pixel. */
  _paint() {
    const { layer } = this;
    if (layer) {
      const context = layer.getContext("2d");
      const pixels = context.createImageData(layer.width, layer.height);
      const colours = new Uint32Array(pixels.data.buffer);
      this._numbers = new Uint32Array(colours.length);
      for (const found of this.found.sort((a, b) => b.area - a.area)) this._fill(found, colours);
      context.putImageData(pixels, 0, 0);
    }
    this.dispatchEvent(new Event("change"));
  }

  _fill({ mask, number }, colours) {
    const { width, height } = this.layer;
    const tint = colour(number);
    for (let x = 0; x < width; x++) {
      const column = mask.columns[Math.floor((x + 0.5) / this._scale)] ?? [];
      for (let i = 0; i < column.length; i += 2) {
        const end = Math.min(height, Math.round(column[i + 1] * this._scale));
        for (let y = Math.round(column[i] * this._scale); y < end; y++) {
          colours[y * width + x] = tint;
          this._numbers[y * width + x] = number + 1;
        }
      }
    }
  }
}
