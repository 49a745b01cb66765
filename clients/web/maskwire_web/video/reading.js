// Reads films, animations and pictures as clips. Films are decoded by the browser, frame by frame.

import { Clip } from "./clip.js";

const QUALITY = 0.95;
const STILLS_RATE = 24; // frames a second of pictures, which have no times
const SEEK_MS = 10_000;
const ANIMATED = /^image\/(gif|webp|apng)$/;
const AS_THEY_ARE = /^image\/(jpeg|png)$/;

/** A file that cannot be read; the message has the reason and the remedy. */
export class UnusableClip extends Error {}

/** What kind of clip files are: "film", "animation", "pictures", or "" for none. */
export function kindOf(files) {
  if (files.length === 1 && files[0].type.startsWith("video/")) return "film";
  if (files.length === 1 && ANIMATED.test(files[0].type)) return "animation";
  return files.length && files.every(({ type }) => type.startsWith("image/")) ? "pictures" : "";
}

/** Opens a film, without reading its frames. Resolves to a <video>, which `closeFilm` must be given. */
export async function openFilm(file) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, preload: "auto", playsInline: true, src: URL.createObjectURL(file) });
  try {
    await happened(video, "loadeddata");
    if (!Number.isFinite(video.duration)) {
      video.currentTime = 1e7; // recordings do not say how long they are; the browser finds out at the end
      await happened(video, "durationchange");
    }
    if (!video.videoWidth) throw new Error("it has no pictures");
  } catch (error) {
    closeFilm(video);
    throw new UnusableClip(`This browser cannot play ${file.name} (${error.message}). Convert it to MP4 with H.264 or to WebM; maskwire track reads more formats.`);
  }
  return video;
}

export function closeFilm(video) {
  URL.revokeObjectURL(video.src);
  video.removeAttribute("src");
  video.load();
}

/**
 * Takes frames of a film, those that are shown at equal distances.
 *
 * @param selection {rate, start, end, side}: frames a second, seconds, and the longer side at most
 * @param progress called with the fraction done; returns false to give up
 * @returns a Clip, or null if it was given up
 */
export async function takeFilm(video, name, { rate, start, end, side }, progress) {
  const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  const [width, height] = [video.videoWidth, video.videoHeight].map((length) => Math.max(1, Math.round(length * scale)));
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { alpha: false });
  const count = framesOf(start, end, rate);
  const frames = [];
  for (let index = 0; index < count; index++) {
    const time_s = index / rate;
    video.currentTime = Math.min(start + time_s + 0.25 / rate, video.duration); // within the frame, not at its edge
    await happened(video, "seeked");
    context.drawImage(video, 0, 0, width, height);
    frames.push({ blob: await canvas.convertToBlob({ type: "image/jpeg", quality: QUALITY }), time_s, name: frameName(name, index) });
    if (progress((index + 1) / count) === false) return null;
  }
  return new Clip(name, frames, { width, height, rate });
}

/** How many frames are taken from `start` to `end`, in seconds. */
export const framesOf = (start, end, rate) => Math.max(1, Math.ceil((end - start) * rate - 1e-6));

/** Reads a GIF, an animated WebP or an APNG. Resolves to null if it is a single picture. */
export async function takeAnimation(file, progress) {
  if (!("ImageDecoder" in self)) {
    const where = isSecureContext ? "in this browser" : "at an address without https other than localhost";
    throw new UnusableClip(`Animations cannot be taken apart ${where}. Convert it to a film, or give its frames as pictures.`);
  }
  const decoder = new ImageDecoder({ data: await file.arrayBuffer(), type: file.type });
  await Promise.all([decoder.completed, decoder.tracks.ready]);
  const { frameCount } = decoder.tracks.selectedTrack;
  if (frameCount < 2) return null;
  const frames = [];
  let [at, canvas, context] = [0];
  for (let index = 0; index < frameCount; index++) {
    const { image } = await decoder.decode({ frameIndex: index });
    canvas ??= new OffscreenCanvas(image.displayWidth, image.displayHeight);
    context ??= canvas.getContext("2d", { alpha: false });
    context.fillStyle = "#fff"; // transparency is over white, as in the Python client
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const blob = await canvas.convertToBlob({ type: "image/png" }); // few colours: smaller than as JPEG, and exact
    frames.push({ blob, time_s: at / 1e6, name: frameName(file.name, index) });
    at += image.duration || 100_000;
    image.close();
    if (progress((index + 1) / frameCount) === false) return null;
  }
  decoder.close();
  return new Clip(file.name, frames, { width: canvas.width, height: canvas.height, rate: (frameCount * 1e6) / at });
}

/** Reads pictures of one size, in the order of their names. JPEG and PNG files are sent as they are. */
export async function takePictures(files, progress) {
  const frames = [];
  let size = null;
  for (const [index, file] of files.entries()) {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => {
      throw new UnusableClip(`This browser cannot show ${file.name}. Save it as JPEG or PNG.`);
    });
    const { width, height } = bitmap;
    size ??= { width, height };
    if (width !== size.width || height !== size.height) {
      throw new UnusableClip(`${file.name} is ${width} × ${height}, and ${files[0].name} is ${size.width} × ${size.height}. All frames of a clip have one size.`);
    }
    const blob = AS_THEY_ARE.test(file.type) ? file : await asPng(bitmap);
    bitmap.close();
    frames.push({ blob, time_s: index / STILLS_RATE, name: file.name });
    if (progress((index + 1) / files.length) === false) return null;
  }
  const folder = files[0].webkitRelativePath.split("/").slice(-2)[0];
  return new Clip(folder || files[0].name, frames, { ...size, rate: STILLS_RATE });
}

const stem = (name) => name.replace(/\.[^.]*$/, "");
const frameName = (name, index) => `${stem(name)}/${String(index).padStart(5, "0")}.jpg`; // as the Python client names them

function asPng(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return canvas.convertToBlob({ type: "image/png" });
}

function happened(video, name) {
  return new Promise((resolve, reject) => {
    const ended = (how) => () => {
      clearTimeout(timer);
      video.removeEventListener(name, done);
      video.removeEventListener("error", failed);
      how(video.error);
    };
    const done = ended(resolve);
    const failed = ended((error) => reject(new Error(error?.message || "its format is unknown")));
    const timer = setTimeout(ended(() => reject(new Error("it takes too long"))), SEEK_MS);
    video.addEventListener(name, done);
    video.addEventListener("error", failed);
  });
}
