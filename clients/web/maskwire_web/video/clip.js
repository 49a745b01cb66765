// A clip that was opened: the file of each frame, and its pixels when they are shown.

const MOST_BITMAPS = 24; // that are kept decoded

export class Clip {
  /**
   * @param name of the file or folder
   * @param frames {blob, time_s, name} of each
   * @param rate frames a second
   */
  constructor(name, frames, { width, height, rate }) {
    Object.assign(this, { name, frames, width, height, rate });
    this._bitmaps = new Map(); // frame -> promise of an ImageBitmap, the least recently used first
  }

  get length() {
    return this.frames.length;
  }

  /** The fields of ClipHeader. */
  get header() {
    return { frames: this.length, width_px: this.width, height_px: this.height, fps: this.rate };
  }

  /** Resolves to the pixels of a frame. They stay valid while it is among the last that were asked for. */
  bitmap(index) {
    const known = this._bitmaps.get(index);
    this._bitmaps.delete(index);
    const bitmap = known ?? createImageBitmap(this.frames[index].blob, { imageOrientation: "from-image" });
    this._bitmaps.set(index, bitmap);
    if (this._bitmaps.size > MOST_BITMAPS) {
      const [oldest, gone] = this._bitmaps.entries().next().value;
      this._bitmaps.delete(oldest);
      gone.then((one) => setTimeout(() => one.close(), 1000), () => {}); // it may be on the screen until then
    }
    return bitmap;
  }

  close() {
    for (const bitmap of this._bitmaps.values()) bitmap.then((one) => one.close(), () => {});
    this._bitmaps.clear();
  }
}
