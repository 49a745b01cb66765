// Whether prompts on the open image are decoded in this browser, and the decoder that does it.

import { Decoder } from "./decoder/decoder.js";

const SETTING = "maskwire.decode"; // in localStorage: "here" or "server"
const WEIGHTS = "maskwire.weights"; // in localStorage: "compact" or "half", as Decoder has them
const SLOW = ["slow-2g", "2g", "3g"];

export class LocalDecoding {
  /** @param api of the gateway */
  constructor(api) {
    this._api = api;
    this._image = null; // its ImageInfo, once prompts on it can be decoded
    this._form = ""; // of the weights with which the decoder was started
    this.failure = ""; // why nothing is decoded here
    this._last = Promise.resolve(); // one image after another
  }

  /**
   * Whether people want the downloads that decoding here needs: 10 to 20 MB at first, then a megabyte or more an image. As
   * they chose, else where the line is good for it and the machine is no phone.
   */
  get isWanted() {
    const chosen = localStorage.getItem(SETTING);
    if (chosen) return chosen === "here";
    return !isSlow() && !matchMedia("(pointer: coarse)").matches;
  }

  /** The form of the decoder's weights: as people chose, else "half" where the line is slow, and exact ones elsewhere. */
  get weights() {
    return localStorage.getItem(WEIGHTS) ?? (isSlow() ? "half" : "compact");
  }

  /** Chooses whether prompts are decoded here. */
  choose(isWanted) {
    localStorage.setItem(SETTING, isWanted ? "here" : "server");
    if (this._newest) this.prepare(this._newest);
  }

  /** Chooses the form of the weights, "compact" or "half"; those of another form are downloaded before more is decoded here. */
  chooseWeights(form) {
    localStorage.setItem(WEIGHTS, form);
    if (this._newest) this.prepare(this._newest);
  }

  /** Whether prompts on an image are decoded here. */
  isReady(image) {
    return Boolean(image && this._image?.content_key === image.content_key);
  }

  /** Downloads what prompts on an image need, unless the line is slow or people do not want it. */
  prepare(image) {
    this._newest = image;
    this._image = null;
    this._last = this._last.then(() => this._open(image));
  }

  async _open(image) {
    if (image !== this._newest || !this.isWanted) return;
    const { weights } = this;
    if (weights !== this._form) await this._restart(weights);
    if (this.failure) return;
    try {
      const decoder = await this._starting;
      await decoder.open(image.image_id, image.content_key);
      if (image === this._newest) this._image = image;
      await decoder.complete(); // while there is a server
    } catch (error) {
      if (!error.isTransient) this.failure = error.message;
    }
  }

  async _restart(weights) {
    const former = this._starting;
    this._form = weights;
    this.failure = "";
    this._starting = Decoder.start({ fetch: (path, options) => this._api.fetch(path, options), weights });
    this._starting.catch(() => {}); // `_open` tells
    await former?.then((decoder) => decoder.close()).catch(() => {}); // it had failed
  }

  /** Answers an object's steps as the server would: a SegmentResponse, in part. */
  async segment(objectId, steps, speculative) {
    const decoder = await this._starting;
    const { masks, object_score, decode_ms, mask_ms } = await decoder.segmentSteps(steps, { keep: !speculative });
    const results = [{ prompt_id: objectId, masks, object_score }];
    return { results, timings: { decode_ms, mask_ms }, isLocal: true, weights: decoder.weights };
  }
}

/** Whether the line is slow, or people want to save data. */
function isSlow() {
  const line = navigator.connection ?? {};
  return Boolean(line.saveData) || SLOW.includes(line.effectiveType);
}
