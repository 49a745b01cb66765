// Writes WebM files of one track of pictures, which may be searched: the parts of Matroska that players need.

const MOST_CLUSTER_MS = 30_000; // times in a cluster are 16 bits

/** An element: {size, parts}, with what it contains: bytes, or other elements. */
function element(id, ...content) {
  const parts = content.flatMap((one) => one.parts ?? [one]);
  const length = parts.reduce((sum, { byteLength }) => sum + byteLength, 0);
  const head = new Uint8Array([...bytesOf(id), 0x01, ...bytesOf(length, 7)]);
  return { size: head.length + length, parts: [head, ...parts] };
}

/** A whole number, most significant byte first, in as few bytes as it needs or in `count`. */
function bytesOf(value, count = Math.max(1, Math.ceil(Math.log2(value + 1) / 8))) {
  return Uint8Array.from({ length: count }, (_, place) => Math.floor(value / 256 ** (count - 1 - place)) % 256);
}

const number = (id, value, count) => element(id, bytesOf(value, count));
const text = (id, value) => element(id, new TextEncoder().encode(value));

function float(id, value) {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, value);
  return element(id, new Uint8Array(view.buffer));
}

function block({ data, time_ms, isKey }, start_ms) {
  const head = new DataView(new ArrayBuffer(4));
  head.setUint8(0, 0x81); // the track
  head.setInt16(1, time_ms - start_ms);
  head.setUint8(3, isKey ? 0x80 : 0);
  return element(0xa3, new Uint8Array(head.buffer), data);
}

/** Groups that begin with a key picture. */
function clusters(pictures) {
  const found = [];
  for (const picture of pictures) {
    const last = found.at(-1);
    if (!last || (picture.isKey && picture.time_ms > last[0].time_ms) || picture.time_ms - last[0].time_ms > MOST_CLUSTER_MS) found.push([picture]);
    else last.push(picture);
  }
  return found;
}

/**
 * @param pictures {data: Uint8Array, time_ms, isKey} of each, in order; times are whole numbers
 * @param codec as Matroska names it, such as "V_VP9"
 * @returns a Blob
 */
export function webm(pictures, { codec, width, height, duration_ms }) {
  const head = element(0x1a45dfa3, number(0x4286, 1), number(0x42f7, 1), number(0x42f2, 4), number(0x42f3, 8), text(0x4282, "webm"), number(0x4287, 4), number(0x4285, 2));
  const info = element(0x1549a966, number(0x2ad7b1, 1e6), float(0x4489, duration_ms), text(0x4d80, "Maskwire"), text(0x5741, "Maskwire"));
  const video = element(0xe0, number(0xb0, width), number(0xba, height));
  const tracks = element(0x1654ae6b, element(0xae, number(0xd7, 1), number(0x73c5, 1), number(0x83, 1), text(0x86, codec), video));
  const groups = clusters(pictures).map((group) => {
    const start_ms = group[0].time_ms;
    return { start_ms, cluster: element(0x1f43b675, number(0xe7, start_ms), ...group.map((one) => block(one, start_ms))) };
  });
  // Where each cluster begins, and where that is written, behind them all: counted from the first byte of this.
  const seek = (place) => element(0x114d9b74, element(0x4dbb, element(0x53ab, bytesOf(0x1c53bb6b)), number(0x53ac, place, 8)));
  let at = seek(0).size + info.size + tracks.size;
  const cues = [];
  for (const { start_ms, cluster } of groups) {
    cues.push(element(0xbb, number(0xb3, start_ms), element(0xb7, number(0xf7, 1), number(0xf1, at))));
    at += cluster.size;
  }
  const segment = element(0x18538067, seek(at), info, tracks, ...groups.map(({ cluster }) => cluster), element(0x1c53bb6b, ...cues));
  return new Blob([...head.parts, ...segment.parts], { type: "video/webm" });
}
