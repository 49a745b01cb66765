// Reads stored embeddings: docs/reference/embeddings.md has their form.

const MAGIC = "MASKWIRE";
const VERSION = 2;
const ALIGNMENT = 64;
const BLOCK = 128; // rows that share a minimum and a step in int4
const BITS = [0, 2, 4, 8, 16]; // of a value, by the form of its plane
const MOST_VALUES = 1 << 26;

/** A value is damaged, or of another version. */
export class UnreadableEmbedding extends Error {}

/**
 * Reads an embedding.
 *
 * @param buffer ArrayBuffer with the stored value
 * @returns {header, tensors}: by name {type, data, shape} as ONNX Runtime takes them: float32, float16 (as Uint16Array)
 *   or, stored as klt, int16
 */
export async function readEmbedding(buffer) {
  const { header, start } = readHeader(buffer);
  const tensors = {};
  let values = 0;
  for (const [name, { shape, parts }] of Object.entries(header.tensors)) {
    values += shape.reduce((product, size) => product * size, 1);
    if (!(values <= MOST_VALUES)) throw new UnreadableEmbedding("the embedding has too many values");
    const part = (key, Kind) => new Kind(buffer, start + parts[key][1], parts[key][2] / Kind.BYTES_PER_ELEMENT);
    tensors[name] = { shape, ...(await decode(header.codec, name, shape, part)) };
  }
  return { header, tensors };
}

/** Reads the header: {header, start}, with the offset of the payload. */
export function readHeader(buffer) {
  const view = new DataView(buffer);
  const text = (from, size) => new TextDecoder().decode(new Uint8Array(buffer, from, size));
  if (buffer.byteLength < 24 || text(0, 8) !== MAGIC || view.getUint32(8, true) !== VERSION) {
    throw new UnreadableEmbedding(`not an embedding of version ${VERSION}`);
  }
  const length = view.getUint32(12, true);
  return { header: JSON.parse(text(24, length)), start: Math.ceil((24 + length) / ALIGNMENT) * ALIGNMENT };
}

async function decode(codec, name, shape, part) {
  switch (codec) {
    case "fp32":
      return { type: "float32", data: part("", Float32Array) };
    case "fp16":
      return { type: "float16", data: part("", Uint16Array) };
    case "int8":
      return { type: "float32", data: decodeInt8(part("", Int8Array), part("scale", Float32Array)) };
    case "int4":
      return { type: "float32", data: decodeInt4(name, shape, part) };
    case "klt":
      return { type: "int16", data: unpackPlanes(await inflate(part("", Uint8Array)), shape) };
    default:
      throw new UnreadableEmbedding(`codec ${codec} is not known`);
  }
}

function decodeInt8(levels, scale) {
  const values = new Float32Array(levels.length);
  for (let at = 0; at < levels.length; at++) values[at] = levels[at] * scale[at % scale.length];
  return values;
}

function decodeInt4(name, shape, part) {
  const bits = name === "image_embed" ? 6 : 4;
  const channels = shape.at(-1);
  const [packed, low, step] = [part("", Uint8Array), part("low", Uint16Array), part("step", Uint16Array)];
  const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
  for (let at = 0; at < values.length; at++) {
    const row = Math.floor(at / channels);
    const scale = Math.floor(row / BLOCK) * channels + (at % channels);
    const first = at * bits; // of the level's bits, the highest first
    const two = (packed[first >> 3] << 8) | (packed[(first >> 3) + 1] ?? 0);
    const level = (two >> (16 - bits - (first & 7))) & ((1 << bits) - 1);
    values[at] = Math.fround(level * half(step[scale])) + half(low[scale]);
  }
  return values;
}

/** The value of a number in half precision. */
export function half(number) {
  const [exponent, fraction] = [(number >> 10) & 31, number & 1023];
  const size = exponent === 31 ? (fraction ? NaN : Infinity) : exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
  return number >> 15 ? -size : size;
}

let halves; // every number in half precision

/** Numbers in half precision as a Float32Array. */
export function widened(numbers) {
  halves ??= Float32Array.from({ length: 1 << 16 }, (_, number) => half(number));
  const values = new Float32Array(numbers.length);
  for (let at = 0; at < values.length; at++) values[at] = halves[numbers[at]];
  return values;
}

/** Undoes DEFLATE. */
export async function inflate(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Unpacks inflated planes of klt: an Int16Array of planes x rows x columns. */
export function unpackPlanes(bytes, [count, rows, columns]) {
  const values = rows * columns;
  const planes = new Int16Array(count * values);
  let at = count;
  for (let index = 0; index < count; index++) {
    const [form, predictor] = [bytes[index] & 15, bytes[index] >> 4];
    if (!(form < BITS.length && predictor < 4)) throw new UnreadableEmbedding("a plane has an unknown form");
    const plane = planes.subarray(index * values, (index + 1) * values);
    const bits = BITS[form];
    for (let value = 0; bits && value < values; value++) {
      const first = value * bits;
      const place = at + (first >> 3);
      const folded = bits === 16 ? bytes[place] | (bytes[place + 1] << 8) : (bytes[place] >> (first & 7)) & ((1 << bits) - 1);
      plane[value] = (folded >> 1) ^ -(folded & 1);
    }
    at += Math.ceil((values * bits) / 8);
    if (predictor & 1) for (let value = 0; value < values; value++) if (value % columns) plane[value] += plane[value - 1];
    if (predictor & 2) for (let value = columns; value < values; value++) plane[value] += plane[value - columns];
  }
  if (at !== bytes.length) throw new UnreadableEmbedding("the planes do not end where they should");
  return planes;
}
