// Whether prompts on the open image are decoded in this browser, and the decoder that does it.

import { Decoder } from "./decoder/decoder.js";

const SETTING = "maskwire.decode"; // in localStorage: "here" or "server"
const WEIGHTS = "maskwire.weights"; // in localStorage: "compact" or "half", as Decoder has them
const BACKEND = "maskwire.backend"; // in localStorage: "wasm" or "webgpu", likewise
const SLOW = ["slow-2g", "2g", "3g"];

export class LocalDecoding {
  /** @param api of the gateway */
  constructor(api) {
    this._api = api;
    this._image = null; // its ImageInfo, once prompts on it can be decoded
    this._started = ""; // the form of the weights and the backend with which the decoder was started
    this.refusal = ""; // why WebGPU does not decode, though people chose it
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

  /** What decodes: as people chose, else "wasm", the processor; that, too, where WebGPU has failed since. */
  get backend() {
    return this.refusal ? "wasm" : this.chosenBackend;
  }

  get chosenBackend() {
    return localStorage.getItem(BACKEND) ?? "wasm";
  }

  /** Chooses what decodes, "wasm" or "webgpu"; only then the runtime of the latter is downloaded. */
  chooseBackend(backend) {
    localStorage.setItem(BACKEND, backend);
    this.refusal = "";
    if (this._newest) this.prepare(this._newest);
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
    const { weights, backend } = this;
    if (`${weights} ${backend}` !== this._started) await this._restart(weights, backend);
    if (this.failure) return;
    const starting = this._starting;
    try {
      const decoder = await starting;
      await decoder.open(image.image_id, image.content_key);
      if (image === this._newest) this._image = image;
      await decoder.complete(); // while there is a server
    } catch (error) {
      if (!error.isTransient) this._fail(starting, backend, error);
    }
  }

  /** What a decoder cannot do, that of the next kind does: WebGPU, WebAssembly, the server. */
  _fail(starting, backend, { message }) {
    if (starting !== this._starting || this.refusal === message) return; // it was told already
    this._image = null;
    if (backend === "wasm") {
      this.failure = message;
    } else {
      this.refusal = message;
      this.prepare(this._newest);
    }
  }

  async _restart(weights, backend) {
    const former = this._starting;
    this._started = `${weights} ${backend}`;
    this.failure = "";
    const starting = Decoder.start({ fetch: (path, options) => this._api.fetch(path, options), weights, backend });
    this._starting = starting;
    starting.then((decoder) => decoder.lost).then((error) => this._fail(starting, backend, error), () => {}); // `_open` tells
    await former?.then((decoder) => decoder.close()).catch(() => {}); // it had failed
  }

  /** Answers an object's steps as the server would: a SegmentResponse, in part. */
  async segment(objectId, steps, speculative) {
    const starting = this._starting;
    const decoder = await starting;
    const { masks, object_score, decode_ms, mask_ms } = await decoder.segmentSteps(steps, { keep: !speculative }).catch((error) => {
      if (decoder.backend === "webgpu") this._fail(starting, "webgpu", error); // one that fails once is not tried again
      throw error;
    });
    const results = [{ prompt_id: objectId, masks, object_score }];
    return { results, timings: { decode_ms, mask_ms }, here: this._how(decoder) };
  }

  /** How a decoder of this browser answers, for the status line. */
  _how({ weights, backend, isSoftware }) {
    const how = ["here"];
    if (weights === "half") how.push("half precision");
    if (backend === "webgpu") how.push(isSoftware ? "WebGPU in software" : "WebGPU");
    if (this.refusal) how.push("without WebGPU");
    return how.join(", ");
  }

  /** What of the choices did not work, and why; "" if all did. */
  get troubles() {
    const refused = this.refusal && `WebGPU does not decode: ${this.refusal}.`;
    const failed = this.failure && `The server decodes, not this browser: ${this.failure}.`;
    return [refused, failed].filter(Boolean).join(" ");
  }
}

/** Whether the line is slow, or people want to save data. */
function isSlow() {
  const line = navigator.connection ?? {};
  return Boolean(line.saveData) || SLOW.includes(line.effectiveType);
}
