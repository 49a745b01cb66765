// One model's mask decoder and one image, in ONNX Runtime: what maskwire_decoder/predictor.py and object_decoding.py do.

import { best, clamp, encodePrompt, promptsOf, select } from "./prompts.js";

const IMAGE_GRAPHS = { float32: "image_fp32", float16: "image_fp16", int16: "image_klt" };
const ON_GPU = ["click", "refine", "plain", "mask"]; // where there is one
const OUTPUTS = ["logits", "iou", "object_score"];
const MOST_KEPT = 64; // masks of objects' steps

/** A graph that has not been loaded is needed. */
export class GraphMissing extends Error {
  constructor(graph) {
    super(`the graph ${graph} is not loaded`);
    this.graph = graph;
  }
}

export class Predictor {
  /**
   * @param ort the module onnxruntime-web
   * @param gpu a Gpu to compute on, or null for the processor
   */
  constructor(ort, gpu) {
    Object.assign(this, { ort, config: null, image: null });
    this._gpu = gpu;
    this._graphs = {};
    this._weights = {};
    this._sessions = {};
  }

  /** The graph that reads an embedding of a codec. */
  static imageGraph(codec) {
    return { fp16: "image_fp16", klt: "image_klt" }[codec] ?? "image_fp32";
  }

  /** Adds the graphs and weights of an archive; see `readArchive`. */
  load({ config, graphs, weights }) {
    this.config = config;
    Object.assign(this._graphs, graphs);
    Object.assign(this._weights, weights);
  }

  /** Computes what every prompt on an image needs; see `readEmbedding`. */
  async open({ header, tensors }) {
    const feeds = {};
    for (const [name, stored] of Object.entries(tensors)) {
      const { type, data, shape } = this._gpu?.readable(stored) ?? stored;
      feeds[name] = new this.ort.Tensor(type, data, shape);
    }
    const [{ type }] = Object.values(tensors);
    const session = await this._session(IMAGE_GRAPHS[type]);
    const computed = await session.run(feeds);
    const prepared = this._gpu ? this._gpu.uploaded(computed) : computed;
    this.closeImage();
    this.image = { header, prepared, kept: new Map() };
  }

  /** Frees what the open image takes: a GPU's memory is not collected. */
  closeImage() {
    for (const tensor of Object.values(this.image?.prepared ?? {})) tensor.dispose();
    this.image = null;
  }

  /** Decodes a prompt; see `encodePrompt`. Returns {masks: [{logits, score}, ...], objectScore}. */
  async predict(prompt, every) {
    const { header, prepared } = this.image;
    const encoded = encodePrompt(this.config, prompt, header, every);
    const session = await this._session(encoded.graph);
    const feeds = {
      ...(encoded.mask ? { ...prepared, tokens: await this._withMask(prepared.tokens, encoded.mask) } : prepared),
      points: new this.ort.Tensor("float32", encoded.points, [encoded.labels.length, 2]),
      labels: new this.ort.Tensor("int64", encoded.labels, [encoded.labels.length]),
      masks: new this.ort.Tensor("int64", BigInt64Array.from(encoded.masks, BigInt), [encoded.masks.length]),
    };
    const wanted = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]]));
    const { logits, iou, object_score } = await session.run(wanted, OUTPUTS);
    if (encoded.mask) feeds.tokens.dispose();
    const masks = select(this.config, encoded, logits.data, iou.data);
    if (!masks.every(({ score, logits }) => Number.isFinite(score) && logits.every(Number.isFinite))) {
      throw new Error("the model gave values that are NaN or infinite");
    }
    return { masks, objectScore: object_score.data[0] };
  }

  /**
   * Decodes an object from its steps; see `promptsOf`. Masks of earlier steps are kept, or decoded again.
   *
   * @param every whether all candidates are wanted, or the best
   * @param keep whether others will go on from the last step
   */
  async predictSteps(steps, every, keep) {
    const prompts = promptsOf(steps);
    const { kept } = this.image;
    let first = prompts.length - 1;
    while (prompts[first].refine && !kept.has(prompts[first - 1].key)) first--;
    let mask = prompts[first].refine ? kept.get(prompts[first - 1].key) : null;
    let prediction;
    for (let index = first; index < prompts.length; index++) {
      const isLast = index === prompts.length - 1;
      const { refine, key, ...prompt } = prompts[index];
      prediction = await this.predict({ ...prompt, mask: refine ? mask : null }, isLast && every);
      mask = clamp(best(prediction.masks).logits);
      if (!isLast || keep) this._keep(key, mask);
    }
    return prediction;
  }

  _keep(key, mask) {
    const { kept } = this.image;
    kept.delete(key);
    kept.set(key, mask);
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }

  async _withMask(tokens, mask) {
    const size = this.config.mask_size;
    const session = await this._session("mask");
    const { with_mask } = await session.run({ tokens, mask: new this.ort.Tensor("float32", mask, [1, size, size]) });
    return with_mask;
  }

  async _session(name) {
    if (this._sessions[name]) return this._sessions[name];
    const graph = this._graphs[name];
    if (!graph) throw new GraphMissing(name);
    const externalData = graph.weights.map((path) => ({ path, data: this._weights[path] }));
    const { model, options } = this._prepare(name, graph.model);
    const all = { ...options, ...(externalData.length ? { externalData } : {}) };
    return (this._sessions[name] = await this.ort.InferenceSession.create(model, all));
  }

  /** A graph as this runtime runs it, and the options of its session. */
  _prepare(name, model) {
    if (this._gpu && ON_GPU.includes(name)) return this._gpu.session(model, name === "mask");
    return { model: this._gpu?.imageGraph(model) ?? model, options: { executionProviders: ["wasm"] } };
  }
}
