// Reads the archives in which graphs of exported decoders come: zip.

import { inflate, widened } from "./embedding.js";

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const END_BYTES = 22;
const [STORED, DEFLATED] = [0, 8]; // methods of compression

/**
 * Reads an archive of graphs.
 *
 * @param buffer ArrayBuffer with the archive
 * @returns {config, graphs, weights}: the configuration; by name {model, weights}, a graph's bytes and the names of its
 *   external weights; and by name the bytes of the weights that the archive has, little-endian, fp32 where they came in
 *   half precision
 */
export async function readArchive(buffer) {
  const files = await readZip(buffer);
  const described = JSON.parse(new TextDecoder().decode(files.get("bundle.json")));
  const graphs = {};
  for (const [name, weights] of Object.entries(described.graphs)) graphs[name] = { model: files.get(`${name}.onnx`), weights };
  const weights = {};
  for (const [name, bytes] of files) if (name.endsWith(".npy")) weights[name.slice(0, -4)] = arrayBytes(bytes);
  return { config: described.config, graphs, weights };
}

/** The files of a zip archive by name; those that are not compressed are views of it. */
async function readZip(buffer) {
  const view = new DataView(buffer);
  const end = buffer.byteLength - END_BYTES; // Maskwire's archives have no comment
  if (end < 0 || view.getUint32(end, true) !== END) throw new Error("the archive is cut off");
  const files = new Map();
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left; left--) {
    const method = view.getUint16(at + 10, true);
    if (view.getUint32(at, true) !== ENTRY || ![STORED, DEFLATED].includes(method)) throw new Error("the archive is damaged");
    const [size, nameSize] = [view.getUint32(at + 20, true), view.getUint16(at + 28, true)];
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameSize));
    const local = view.getUint32(at + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const packed = new Uint8Array(buffer, start, size);
    files.set(name, method === DEFLATED ? await inflate(packed) : packed);
    at += 46 + nameSize + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return files;
}

/** The values of an array that numpy wrote (version 1.0). */
function arrayBytes(file) {
  const start = 10 + (file[8] | (file[9] << 8));
  const values = file.subarray(start);
  if (!new TextDecoder().decode(file.subarray(10, start)).includes("'<f2'")) return values;
  return new Uint8Array(widened(new Uint16Array(values.slice().buffer)).buffer);
}
