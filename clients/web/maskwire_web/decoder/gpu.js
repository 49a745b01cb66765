// WebGPU, where people choose it: what this browser has of it, and how ONNX Runtime uses it.

import { nameNodes, widenInputs } from "./onnx_edits.js";

const RUNTIME = new URL("./onnxruntime/ort.jspi.min.mjs", import.meta.url).href;
const REMEDY = 'run scripts/browser-decoder before the gateway is packaged or started, or decode with the backend "wasm"';

// WGSL allows sine and cosine an error of 2^-11, and drivers make use of it. Positions of points and image tokens are made
// of them, so that logits would move by some thousandths; on the processor they are exact.
const ON_PROCESSOR = ["Sin", "Cos"];

const ERRORS = 3; // are logged; not that nodes run on the processor
const ALIGNMENT = 16; // of the sizes of buffers, as ONNX Runtime has it
const FEATURES = ["subgroups", "shader-f16", "timestamp-query"]; // that ONNX Runtime uses where a device has them
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
];

/**
 * Looks for what decoding by WebGPU needs, and downloads nothing.
 *
 * @returns {lack, adapter, isSoftware}: what is missing, as a sentence, or ""; the GPUAdapter; and whether that computes on
 *   the processor, which is slower than WebAssembly
 */
export async function findGpu() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  const isSoftware = Boolean(adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter);
  return { lack: await missing(adapter), adapter, isSoftware };
}

async function missing(adapter) {
  if (!navigator.gpu) return "this browser has no WebGPU, or the page is neither at localhost nor at https";
  if (!adapter) return "WebGPU finds no graphics card that this browser uses";
  // ONNX Runtime waits for the GPU by JavaScript Promise Integration; its build for browsers without has 10 MB more.
  if (!("Suspending" in WebAssembly)) return "this browser's WebAssembly cannot wait for promises (JSPI)";
  const { ok } = await fetch(RUNTIME, { method: "HEAD" });
  return ok ? "" : `this gateway has no ONNX Runtime for WebGPU: ${REMEDY}`;
}

export class Gpu {
  /**
   * Opens the GPU and loads the runtime.
   *
   * @param lost called with a message when the device is lost
   * @throws Error that says what is missing
   */
  static async open(lost) {
    const { lack, adapter, isSoftware } = await findGpu();
    if (lack) throw new Error(lack);
    const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
    const requiredFeatures = FEATURES.filter((name) => adapter.features.has(name));
    const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
    device.lost.then(({ message }) => lost(`the graphics card was lost: ${message.replace(/\.$/, "") || "no reason was given"}`));
    return new Gpu(await import(RUNTIME), device, isSoftware);
  }

  constructor(ort, device, isSoftware) {
    Object.assign(this, { ort, device, isSoftware });
  }

  /** The graph of images, which this runtime's processor runs, once an image: it reads types that GPUs have not. */
  imageGraph(graph) {
    return widenInputs(graph);
  }

  /** A tensor of an embedding as that graph takes it. */
  readable({ type, data, shape }) {
    return type === "int16" ? { type: "float32", data: Float32Array.from(data), shape } : { type, data, shape };
  }

  /** A graph as the GPU runs it, and the options of its session, whose outputs stay on the GPU where they are kept. */
  session(graph, isKept) {
    const { model, names } = nameNodes(graph, ON_PROCESSOR);
    const provider = { name: "webgpu", device: this.device, ...(names.length ? { forceCpuNodeNames: names } : {}) };
    const options = { executionProviders: [provider], logSeverityLevel: ERRORS, ...(isKept ? { preferredOutputLocation: "gpu-buffer" } : {}) };
    return { model, options };
  }

  /** Tensors of fp32 on the GPU, in the place of such on the processor. */
  uploaded(tensors) {
    return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, this._upload(tensor)]));
  }

  _upload(tensor) {
    const { data, dims, type: dataType } = tensor;
    const size = Math.ceil(data.byteLength / ALIGNMENT) * ALIGNMENT;
    const buffer = this.device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
    this.device.queue.writeBuffer(buffer, 0, data);
    tensor.dispose();
    return this.ort.Tensor.fromGpuBuffer(buffer, { dataType, dims, dispose: () => buffer.destroy() });
  }
}
