// Writes PNG files with 8 bits a pixel, grey or with a palette. They are smaller than a canvas's, and not limited to a canvas's size.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** A chunk: length, name, content, checksum. */
function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc32(bytes.subarray(4, content.length + 8)));
  return bytes;
}

/** @param pixels height x width bytes, row by row. Returns a Blob. */
export const greyPng = (pixels, width, height) => png(pixels, width, height, 0);

/** As `greyPng`. @param palette 256 colours: red, green and blue in turn */
export const indexedPng = (pixels, width, height, palette) => png(pixels, width, height, 3, chunk("PLTE", Uint8Array.from(palette)));

async function png(pixels, width, height, colourType, ...more) {
  const rows = new Uint8Array((width + 1) * height); // each row begins with its filter type: 0, none
  for (let y = 0; y < height; y++) rows.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, colourType, 0, 0, 0], 8); // bit depth 8, default methods, not interlaced
  const signature = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  const chunks = [chunk("IHDR", header), ...more, chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([signature, ...chunks], { type: "image/png" });
}
