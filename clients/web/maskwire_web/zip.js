// Writes ZIP archives whose files are stored as they are: PNG files are compressed already.

import { crc32 } from "./png.js";

const DOS_DATE = 0x21; // 1 January 1980
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const UTF8 = 0x800; // flag: names are UTF-8

/** Little-endian fields: [value, bytes] each. */
function fields(...values) {
  const bytes = new Uint8Array(values.reduce((sum, [, size]) => sum + size, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const [value, size] of values) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return bytes;
}

/** @param files [name, Blob] of each. Returns a Blob of less than 4 GiB. */
export async function zip(files) {
  const parts = [];
  const directory = [];
  let at = 0;
  let directoryBytes = 0;
  for (const [name, blob] of files) {
    const path = new TextEncoder().encode(name);
    const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
    const common = [[20, 2], [UTF8, 2], [0, 2], [0, 2], [DOS_DATE, 2], [crc, 4], [blob.size, 4], [blob.size, 4], [path.length, 2], [0, 2]];
    const local = fields([LOCAL, 4], ...common);
    const central = fields([CENTRAL, 4], [20, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [at, 4]);
    parts.push(local, path, blob);
    directory.push(central, path);
    at += local.length + path.length + blob.size;
    directoryBytes += central.length + path.length;
  }
  const end = fields([END, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [directoryBytes, 4], [at, 4], [0, 2]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
