// Detects file formats, and explains what to do about files that cannot be shown.

const EXPORT = "Save it as PNG or JPEG and open that.";
const ELSEWHERE = `${EXPORT} Maskwire's command line and Python client read it as it is.`;

/** Formats that browsers and the server decode equally: such files are uploaded unchanged, all others as PNG. */
const SENT_AS_THEY_ARE = ["JPEG", "PNG", "WebP"];

const REMEDIES = {
  TIFF: ELSEWHERE,
  "JPEG 2000": ELSEWHERE,
  "PPM/PGM": ELSEWHERE,
  TGA: ELSEWHERE,
  HEIC: "Share or export it as JPEG; iPhones take JPEG photos with Settings > Camera > Formats > Most Compatible.",
  "camera raw": "Develop it to JPEG or PNG with the camera's program or a photo program.",
  SVG: "It is a drawing without pixels: export it as PNG.",
  PDF: "It is a document: export the page as PNG, or take a screenshot of it.",
  video: "Save a single picture of it as PNG or JPEG.",
  archive: "Unpack it, and open the pictures in it.",
};

const text = (bytes, start, end) => String.fromCharCode(...bytes.subarray(start, end));
const ftyp = (bytes) => (text(bytes, 4, 8) === "ftyp" ? text(bytes, 8, 12) : "");
const begins = (...numbers) => (bytes) => numbers.every((number, i) => bytes[i] === number);
const says = (word, at = 0) => (bytes) => text(bytes, at, at + word.length) === word;

const SIGNATURES = [
  ["JPEG", begins(0xff, 0xd8, 0xff)],
  ["PNG", begins(0x89, 0x50, 0x4e, 0x47)],
  ["WebP", (bytes) => says("RIFF")(bytes) && says("WEBP", 8)(bytes)],
  ["GIF", says("GIF8")],
  ["BMP", says("BM")],
  ["ICO", begins(0, 0, 1, 0)],
  ["AVIF", (bytes) => ["avif", "avis"].includes(ftyp(bytes))],
  ["HEIC", (bytes) => /^(he[ivs][cmsx]|mif1|msf1)$/.test(ftyp(bytes))],
  ["camera raw", (bytes) => says("CR", 8)(bytes) || says("FUJIFILMCCD-RAW")(bytes) || ftyp(bytes) === "crx "],
  ["TIFF", (bytes) => ["II*\0", "MM\0*", "II+\0", "MM\0+"].includes(text(bytes, 0, 4))],
  ["JPEG 2000", (bytes) => says("jP  ", 4)(bytes) || begins(0xff, 0x4f, 0xff, 0x51)(bytes)],
  ["JPEG XL", (bytes) => begins(0xff, 0x0a)(bytes) || says("JXL ", 4)(bytes)],
  ["PPM/PGM", (bytes) => /^P[1-7]\s/.test(text(bytes, 0, 3))],
  ["Photoshop", says("8BPS")],
  ["DICOM", says("DICM", 128)],
  ["OpenEXR", begins(0x76, 0x2f, 0x31, 0x01)],
  ["PDF", says("%PDF")],
  ["video", (bytes) => Boolean(ftyp(bytes)) || begins(0x1a, 0x45, 0xdf, 0xa3)(bytes)],
  ["archive", (bytes) => says("PK\x03\x04")(bytes) || begins(0x1f, 0x8b)(bytes) || says("7z\xbc\xaf")(bytes)],
  ["SVG", (bytes) => /^\s*(<\?xml[^]*)?(<!--[^]*)?<svg/.test(text(bytes, 0, bytes.length))],
];

/** Formats recognized by file extension, since their first bytes are not distinctive. */
const EXTENSIONS = [
  ["camera raw", /\.(cr2|cr3|nef|arw|dng|orf|rw2|raf|pef|srw)$/i],
  ["TGA", /\.(tga|vda|icb|vst)$/i],
];

/**
 * The format of a file, or "" if it is unknown.
 *
 * @param bytes at least its first 256 bytes
 */
export function formatOf(bytes, name) {
  const [raw, tga] = EXTENSIONS.map(([format, pattern]) => (pattern.test(name) ? format : ""));
  return raw || SIGNATURES.find(([, matches]) => matches(bytes))?.[0] || tga;
}

/** Whether a file can be uploaded unchanged: browser and server decode it to the same pixels. */
export function isSentAsItIs(format, bytes) {
  if (!SENT_AS_THEY_ARE.includes(format)) return false;
  return format === "JPEG" || !mentions(bytes, format === "PNG" ? "eXIf" : "EXIF"); // EXIF orientation, which not all decoders apply
}

function mentions(bytes, name) {
  const [a, b, c, d] = [...name].map((character) => character.charCodeAt(0));
  for (let i = bytes.indexOf(a); i >= 0; i = bytes.indexOf(a, i + 1)) {
    if (bytes[i + 1] === b && bytes[i + 2] === c && bytes[i + 3] === d) return true;
  }
  return false;
}

/** Why a file cannot be shown, and the remedy. */
export function refusal(name, format, bytes) {
  if (!bytes.length) return `${name} is empty: it has 0 bytes. Copy or download it again.`;
  if (!format) return `${name} is not a picture. JPEG, PNG, WebP, GIF, AVIF, BMP and ICO files can be opened here.`;
  if (["JPEG", "PNG", "WebP", "GIF", "BMP", "ICO"].includes(format)) {
    return `${name} is a damaged ${format} file, or one that is too large for this browser. Copy or download it again, or save it anew.`;
  }
  return `${name} is ${kind(format)}, which this browser cannot show. ${REMEDIES[format] ?? EXPORT}`;
}

function kind(format) {
  if (["video", "archive"].includes(format)) return format === "video" ? "a video" : "an archive";
  return `${/^(AVIF|HEIC|ICO|OpenEXR|SVG)$/.test(format) ? "an" : "a"} ${format} file`;
}
