// The worker in which prompts are decoded. Messages are {id, call, values}; answers {id, result} or {id, error}; {lost} says
// why nothing will be answered any more.

import { readArchive } from "./archive.js";
import { readEmbedding } from "./embedding.js";
import { Predictor } from "./predictor.js";
import { rle } from "./runs.js";

const RUNTIME = new URL("./onnxruntime/", import.meta.url).href;

let ort;
let gpu = null; // where the backend is WebGPU
let predictor;
let last = Promise.resolve(); // one call at a time, in their order

const CALLS = {
  /**
   * Starts the runtime: a backend is "wasm" or "webgpu". Without cross-origin isolation there is one thread. Returns how many
   * there are, and whether what should be a GPU is software.
   */
  async start({ threads, backend }) {
    if (backend === "webgpu") {
      const { Gpu } = await import("./gpu.js"); // nobody else downloads it
      gpu = await Gpu.open((lost) => postMessage({ lost }));
    }
    ort = gpu?.ort ?? (await import(`${RUNTIME}ort.wasm.min.mjs`));
    ort.env.wasm.wasmPaths = RUNTIME;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
    return { threads: ort.env.wasm.numThreads, isSoftware: gpu?.isSoftware ?? false };
  },

  /** Takes graphs: those of another decoder than before, or more of the same. */
  async load({ archive, isOther }) {
    const read = await readArchive(archive);
    if (isOther || !predictor) {
      predictor?.closeImage();
      predictor = new Predictor(ort, gpu);
    }
    predictor.load(read);
  },

  /** Takes an embedding, whose graph and weights are there. Returns {width, height}. */
  async open({ embedding }) {
    const read = await readEmbedding(embedding);
    await predictor.open(read);
    return { width: read.header.width, height: read.header.height };
  },

  /** Decodes a prompt, or an object's steps. */
  async segment({ prompt, steps, every, keep, withLogits }) {
    const started = performance.now();
    const { masks, objectScore } = steps ? await predictor.predictSteps(steps, every, keep) : await predictor.predict(prompt, every);
    const decoded = performance.now();
    const { mask_size } = predictor.config;
    const { width, height } = predictor.image.header;
    const results = masks.map(({ logits, score }) => ({
      score,
      rle: rle(logits, mask_size, width, height),
      ...(withLogits ? { logits: logits.slice() } : {}),
    }));
    return { masks: results, object_score: objectScore, decode_ms: decoded - started, mask_ms: performance.now() - decoded };
  },
};

onmessage = ({ data: { id, call, values } }) => {
  last = last.then(async () => {
    try {
      postMessage({ id, result: await CALLS[call](values) });
    } catch (error) {
      postMessage({ id, error: { message: String(error?.message ?? error), graph: error?.graph ?? null } });
    }
  });
};
