// An image that was opened: its pixels in the browser, its embedding on the server.

import { formatOf, isSentAsItIs, refusal } from "./formats.js";

const THUMBNAIL_PX = 96;
const round = (value) => Math.max(0, Math.round(value));

/** A file that cannot be shown or used; the message has the reason and the remedy. */
export class UnusablePicture extends Error {}

export class Picture {
  /** Reads a file; rejects with UnusablePicture if this browser cannot show it. */
  static async read(blob, fileName) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const format = formatOf(bytes.subarray(0, 1024), fileName);
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    } catch {
      throw new UnusablePicture(refusal(fileName, format, bytes));
    }
    return new Picture(fileName, bitmap, isSentAsItIs(format, bytes) ? blob : null);
  }

  /** @param sent the file to upload; null to upload the pixels that the browser shows, as PNG */
  constructor(fileName, bitmap, sent) {
    Object.assign(this, { fileName, bitmap, width: bitmap.width, height: bitmap.height });
    this._sent = sent;
    this._isConverted = !sent;
    this.info = null; // ImageInfo, once it is stored
  }

  /** A small JPEG as a data URL. */
  get thumbnail() {
    const scale = Math.min(1, THUMBNAIL_PX / Math.min(this.width, this.height));
    const canvas = document.createElement("canvas");
    const [width, height] = [this.width, this.height].map((side) => Math.max(1, Math.round(side * scale)));
    canvas.width = canvas.height = Math.min(THUMBNAIL_PX, Math.max(width, height));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(this.bitmap, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
    return canvas.toDataURL("image/jpeg", 0.8);
  }

  /**
   * Stores the image on the server, under the same name as before. If the server cannot decode the file, or decodes it to
   * another size, the pixels that the browser shows are uploaded instead.
   *
   * @param model that embeds it; "" for the server's default
   * @param progress as in Api.upload
   * @returns its ImageInfo, and sets `timings`. Rejects with ApiError or UnusablePicture.
   */
  async store(api, model, progress) {
    const image = await this._send(api, model, progress);
    if (image) return (this.info = image);
    if (this._isConverted) throw new UnusablePicture(`The server cannot use ${this.fileName}. Save it as PNG or JPEG and open that.`);
    this._sent = null;
    this._isConverted = true;
    return this.store(api, model, progress);
  }

  /** Resolves to null if the server cannot decode the file, or decodes it to another size. */
  async _send(api, model, progress) {
    this._sent ??= await this._asPng();
    const start = performance.now();
    let answer;
    try {
      answer = await api.upload(this._sent, { image_id: this.info?.image_id, model }, progress);
    } catch (error) {
      if (error.reason === "IMAGE_UNREADABLE") return null;
      if ([400, 413].includes(error.status)) throw new UnusablePicture(`${this.fileName}: ${error.message}`);
      throw error;
    }
    const { image, cached, timings } = answer;
    const total = timings?.total_ms ?? 0;
    this.timings = {
      upload: round(performance.now() - start - total + (timings?.receive_ms ?? 0)),
      encode: cached ? null : round(timings?.encode_ms ?? 0),
    };
    return image.width_px === this.width && image.height_px === this.height ? image : null;
  }

  /** A part of the picture, [left, top, right, bottom], as PNG. */
  async part([left, top, right, bottom]) {
    const canvas = new OffscreenCanvas(right - left, bottom - top);
    canvas.getContext("2d").drawImage(this.bitmap, -left, -top);
    return canvas.convertToBlob({ type: "image/png" });
  }

  async _asPng() {
    try {
      return await this.part([0, 0, this.width, this.height]);
    } catch {
      throw new UnusablePicture(`${this.fileName} is too large for this browser to convert. Save it as PNG or JPEG and open that.`);
    }
  }
}
