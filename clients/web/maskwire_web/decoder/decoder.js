// Decodes prompts in the browser as a decoder server does, in a worker. Needs nothing of the page: other pages that the
// gateway serves can use it, too.

import { readHeader } from "./embedding.js";
import { Predictor } from "./predictor.js";

const TOLERANCE = { compact: 1e-3, half: 0.1 }; // of logits, between the browser's and the server's, by the form of weights
const MORE = ["mask", "refine", "plain"]; // graphs that few prompts need: loaded with the first that does
const MOST_THREADS = 4;
const BACKENDS = ["wasm", "webgpu"];

/** The browser does not decode: it lacks something, or its results are not the server's. Ask the server instead. */
export class CannotDecode extends Error {}

export class Decoder {
  /**
   * Starts the worker and the runtime.
   *
   * @param fetch async (path, options) => Response of the gateway's /v1/ with that path; throws if it is an error
   * @param threads how many, where the page is cross-origin isolated; else there is one
   * @param weights how they are downloaded: "compact", in half precision where that changes nothing, or "half", all of
   *   them, which is half of the bytes for SAM 2.1 and moves logits by up to some hundredths
   * @param backend what computes: "wasm", the processor, or "webgpu", the graphics card, with another runtime. A card must agree
   *   with the server as the processor must: `findGpu` in gpu.js says whether there is one. `isSoftware` of the decoder says
   *   whether it is none, but software on the processor
   * @throws CannotDecode; TypeError if an option or its value is unknown
   */
  static async start({ fetch, threads = defaultThreads(), weights = "compact", backend = "wasm", ...others }) {
    const [unknown] = Object.keys(others);
    if (unknown) throw new TypeError(`${unknown} is no option; these are fetch, threads, weights and backend`);
    if (!Object.hasOwn(TOLERANCE, weights)) throw new TypeError(`weights is "compact" or "half", not ${weights}`);
    if (!BACKENDS.includes(backend)) throw new TypeError(`backend is "wasm" or "webgpu", not ${backend}`);
    const decoder = new Decoder(fetch, weights, backend);
    try {
      return Object.assign(decoder, await decoder._ask("start", { threads, backend }));
    } catch (error) {
      decoder.close(error);
      throw error;
    }
  }

  constructor(fetch, weights, backend) {
    this._fetch = fetch;
    Object.assign(this, { weights, backend });
    /** Resolves to a CannotDecode when the worker or the graphics card is lost; from then on, every call fails with it. */
    this.lost = new Promise((resolve) => (this._tellLost = resolve));
    this._waiting = new Map(); // by id, {resolve, reject}
    this._number = 0;
    this._digest = ""; // of the exported decoder whose graphs are loaded
    this._loaded = []; // their names
    this._agreed = new Set(); // digests of decoders whose results were compared with the server's
    this._worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this._worker.onmessage = ({ data: { id, result, error, lost } }) => {
      if (lost) return this._lose(lost);
      const { resolve, reject } = this._waiting.get(id);
      this._waiting.delete(id);
      if (error) reject(Object.assign(new CannotDecode(error.message), { graph: error.graph }));
      else resolve(result);
    };
    this._worker.onerror = (event) => this._lose(event.message || "the worker could not be started");
  }

  /**
   * Downloads an image's embedding, and the graphs that read it if it is the first of its model; compares a click with the
   * server's answer, once for each model.
   *
   * @param imageId the image's name
   * @param contentKey of its embedding; absent: whatever the name stands for
   * @returns {contentKey, width, height, bytes}: what was opened, and how many bytes were asked for, cached ones included
   * @throws CannotDecode, and what `fetch` throws
   */
  async open(imageId, contentKey = "") {
    const query = contentKey ? `?${new URLSearchParams({ content_key: contentKey })}` : "";
    const embedding = await this._download(`images/${encodeURIComponent(imageId)}/embedding${query}`);
    const { header } = readHeader(embedding);
    let bytes = embedding.byteLength;
    const isOther = header.decoder !== this._digest;
    const graphs = [Predictor.imageGraph(header.codec), "click"].filter((graph) => isOther || !this._loaded.includes(graph));
    if (graphs.length) bytes += await this._load(header.decoder, graphs, isOther);
    await this._ask("open", { embedding }, [embedding]);
    this.image = { imageId, contentKey: header.content_key, width: header.width, height: header.height };
    if (!this._agreed.has(header.decoder)) await this._compare(header.decoder);
    return { contentKey: header.content_key, width: header.width, height: header.height, bytes };
  }

  /**
   * Decodes a prompt on the open image.
   *
   * @param prompt {points: [[x, y], ...], labels, box, mask, multimask}; see `encodePrompt` in prompts.js
   * @param every whether all candidates are wanted, or the best
   * @param withLogits whether their logits are wanted, too
   * @returns {masks: [{score, rle, logits}, ...], object_score, decode_ms, mask_ms}
   */
  segment(prompt, { every = false, withLogits = false } = {}) {
    return this._segment({ prompt, every, withLogits });
  }

  /**
   * Decodes an object from its steps, in the form of SegmentStreamRequest.
   *
   * @param keep whether later calls go on from these steps
   */
  segmentSteps(steps, { every = false, withLogits = false, keep = true } = {}) {
    return this._segment({ steps, every, withLogits, keep });
  }

  /** Loads what only some prompts need (masks, corrections, many points), before they need it. */
  async complete() {
    if (!this._loaded.includes(MORE[0])) await this._load(this._digest, MORE, false);
  }

  /** Ends the worker; what waits fails. */
  close(error = new CannotDecode("the decoder was closed")) {
    this._worker.terminate();
    this._failure = error;
    for (const { reject } of this._waiting.values()) reject(error);
    this._waiting.clear();
  }

  _lose(message) {
    const error = new CannotDecode(message);
    this.close(error);
    this._tellLost(error);
  }

  async _segment(values) {
    try {
      return await this._ask("segment", values);
    } catch (error) {
      if (!error.graph) throw error;
      await this.complete();
      return this._ask("segment", values);
    }
  }

  async _load(digest, graphs, isOther) {
    const query = new URLSearchParams({ weights: this.weights });
    if (!isOther && this._loaded.length) query.set("without", this._loaded.join(","));
    const archive = await this._download(`decoders/${digest}/${graphs.join(",")}?${query}`);
    const bytes = archive.byteLength;
    await this._ask("load", { archive, isOther }, [archive]);
    this._digest = digest;
    this._loaded = isOther ? graphs : [...this._loaded, ...graphs];
    return bytes;
  }

  async _compare(digest) {
    const { imageId, contentKey, width, height } = this.image;
    const point = [width / 2, height / 2];
    const request = {
      points: [point],
      content_key: contentKey,
      output: { formats: ["logits"], logits_type: "fp32", unclamped_logits: true },
    };
    const options = { method: "POST", body: JSON.stringify(request), headers: { "Content-Type": "application/json" } };
    const answer = await (await this._fetch(`images/${encodeURIComponent(imageId)}/segment`, options)).json();
    const { masks } = await this.segment({ points: [point], labels: [1] }, { withLogits: true });
    const worst = Math.max(...masks.map(({ logits }, index) => difference(logits, answer.results[0].masks[index].logits.data)));
    if (!(worst <= TOLERANCE[this.weights])) throw new CannotDecode(`this browser's logits differ from the server's by ${worst}`);
    this._agreed.add(digest);
  }

  async _download(path) {
    return (await this._fetch(path)).arrayBuffer();
  }

  _ask(call, values, moved = []) {
    if (this._failure) return Promise.reject(this._failure);
    const id = ++this._number;
    return new Promise((resolve, reject) => {
      this._waiting.set(id, { resolve, reject });
      this._worker.postMessage({ id, call, values }, moved);
    });
  }
}

const defaultThreads = () => Math.min(MOST_THREADS, navigator.hardwareConcurrency ?? 1);

/** The largest difference between logits and others in base64. */
function difference(logits, text) {
  const others = new Float32Array(Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer);
  let worst = others.length === logits.length ? 0 : Infinity;
  for (let at = 0; at < logits.length; at++) worst = Math.max(worst, Math.abs(logits[at] - others[at]));
  return worst;
}
