// Writes a film of a clip, with the masks of its objects drawn over the frames, as `Track.save` of the Python client does.

import { outlines, pathOf } from "../contours.js";
import { Mask } from "../rle.js";
import { webm } from "../webm.js";
import { stem } from "./saving.js";

const CODECS = [["V_VP9", "vp09.00.51.08"], ["V_VP8", "vp8"]]; // as Matroska and browsers name them
const BITS_PER_PIXEL = 0.2;
const KEY_FRAMES = 48; // frames from one that can be shown by itself to the next
const MOST_QUEUED = 4; // frames that wait for the encoder

/** Whether this browser can write films: over http it can at localhost only. */
export const canWriteFilms = () => typeof VideoEncoder === "function";

/**
 * Resolves to [Blob, file name], or to null if it was given up.
 *
 * @param progress called with the fraction done; returns false to give up
 */
export async function film(items, clip, progress) {
  const [width, height] = [clip.width, clip.height].map((side) => side - (side % 2)); // their colours are those of four pixels
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const { codec, config } = await chosen(width, height, clip.rate);
  const pictures = [];
  const begins_s = clip.frames[0].time_s;
  let failed = null;
  const encoder = new VideoEncoder({
    output(chunk) {
      const data = new Uint8Array(chunk.byteLength);
      chunk.copyTo(data);
      pictures.push({ data, time_ms: Math.round(chunk.timestamp / 1000), isKey: chunk.type === "key" });
    },
    error: (error) => (failed = error),
  });
  encoder.configure(config);
  try {
    for (let frame = 0; frame < clip.length; frame++) {
      draw(context, await clip.bitmap(frame), items, frame);
      const picture = new VideoFrame(canvas, { timestamp: Math.round((clip.frames[frame].time_s - begins_s) * 1e6) });
      encoder.encode(picture, { keyFrame: frame % KEY_FRAMES === 0 });
      picture.close();
      while (encoder.encodeQueueSize > MOST_QUEUED) await new Promise((resolve) => encoder.addEventListener("dequeue", resolve, { once: true }));
      if (failed) throw failed;
      if (!progress((frame + 1) / clip.length)) return null;
    }
    await encoder.flush();
  } finally {
    if (encoder.state !== "closed") encoder.close();
  }
  const duration_ms = (clip.frames.at(-1).time_s - begins_s) * 1000 + 1000 / clip.rate;
  return [webm(pictures, { codec, width, height, duration_ms }), `${stem(clip.name)}-masks.webm`];
}

async function chosen(width, height, rate) {
  const bitrate = Math.max(5e5, Math.round(width * height * rate * BITS_PER_PIXEL));
  for (const [codec, name] of CODECS) {
    const config = { codec: name, width, height, bitrate, framerate: rate };
    if ((await VideoEncoder.isConfigSupported(config)).supported) return { codec, config };
  }
  throw new Error(`This browser writes no film of ${width} × ${height} pixels. Open the clip smaller, or use maskwire track.`);
}

function draw(context, bitmap, items, frame) {
  context.drawImage(bitmap, 0, 0);
  const unit = Math.max(1, Math.min(bitmap.width, bitmap.height) / 360); // lines and letters as wide as on a small screen
  for (const item of items) {
    const seen = item.found.get(frame);
    if (!item.visible || !seen || seen.isEmpty) continue;
    const mask = new Mask(seen.rle);
    const path = pathOf(outlines(mask));
    context.fillStyle = context.strokeStyle = item.colour;
    context.globalAlpha = 0.42;
    context.fill(path, "evenodd");
    context.globalAlpha = 1;
    context.lineJoin = "round";
    context.lineWidth = 1.5 * unit;
    context.stroke(path);
    label(context, item, mask.box, unit);
  }
}

/** An object's name at the top left of its mask, or in it where there is no room above. */
function label(context, { name, colour }, [left, top], unit) {
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const [wide, high] = [context.measureText(name).width + 8 * unit, 17 * unit];
  const x = Math.max(0, Math.min(left, context.canvas.width - wide));
  const y = top >= high ? top - high : top;
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(x, y, wide, high, 3 * unit);
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(name, x + 4 * unit, y + high / 2);
}
