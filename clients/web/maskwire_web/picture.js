// An image that people brought: its pixels here, its embedding at the server.

const round = (value) => Math.max(0, Math.round(value));

export class Picture {
  /** Reads a file; rejects with an Error that says what to do if it is no image that the browser can show. */
  static async read(blob, fileName) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
    } catch {
      throw new Error(`${fileName} cannot be shown by this browser. JPEG, PNG and WebP can.`);
    }
    return new Picture(blob, fileName, bitmap);
  }

  constructor(blob, fileName, bitmap) {
    Object.assign(this, { blob, fileName, bitmap, width: bitmap.width, height: bitmap.height });
    this.info = null; // ImageInfo, once it is stored
  }

  /**
   * Stores the image, under the name that it has at the server if it was there before.
   *
   * @param progress as in Api.upload
   * @returns its ImageInfo; `timings` then says what took how long
   */
  async store(api, progress) {
    const start = performance.now();
    const { image, cached, timings } = await api.upload(this.blob, this.info?.image_id, progress);
    const total = timings?.total_ms ?? 0;
    this.timings = {
      upload: round(performance.now() - start - total + (timings?.receive_ms ?? 0)),
      encode: cached ? null : round(timings?.encode_ms ?? 0),
    };
    if (image.width_px !== this.width || image.height_px !== this.height) {
      throw new Error(
        `The server sees ${image.width_px} × ${image.height_px} pixels, this browser ${this.width} × ${this.height}: ` +
          "places would not agree. Save the image anew as PNG or JPEG.",
      );
    }
    this.info = image;
    return image;
  }
}

/** The first image among what was dropped or pasted, or null. */
export function imageOf(transfer) {
  const files = [...(transfer?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0] ?? null;
}
