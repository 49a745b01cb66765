// Zoom and position of the image. Screen coordinates are CSS pixels from the top left corner of the stage; image
// coordinates are pixels from the top left corner of the image.

const MAX_SCALE = 64;
const MIN_VISIBLE = 48; // CSS pixels of the image that stay visible

export class Viewport extends EventTarget {
  constructor() {
    super();
    this.stage = { width: 1, height: 1 };
    this.image = { width: 1, height: 1 };
    this.insets = { top: 24, right: 24, bottom: 112, left: 24 }; // space for what floats over the stage
    this.scale = 1; // CSS pixels per image pixel
    this.x = 0; // screen coordinates of the image's top left corner
    this.y = 0;
    this.fitted = true; // until the user zooms or pans
  }

  toImage([x, y]) {
    return [(x - this.x) / this.scale, (y - this.y) / this.scale];
  }

  toScreen([x, y]) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  /** The longer side of what is seen of the image, in its pixels. */
  get seen() {
    const [left, top] = this.toImage([0, 0]);
    const [right, bottom] = this.toImage([this.stage.width, this.stage.height]);
    const { width, height } = this.image;
    return Math.max(Math.min(right, width) - Math.max(left, 0), Math.min(bottom, height) - Math.max(top, 0));
  }

  get fitScale() {
    const { top, right, bottom, left } = this.insets;
    const width = Math.max(32, this.stage.width - left - right);
    const height = Math.max(32, this.stage.height - top - bottom);
    return Math.min(width / this.image.width, height / this.image.height);
  }

  resize(width, height) {
    const [dx, dy] = [(width - this.stage.width) / 2, (height - this.stage.height) / 2];
    this.stage = { width, height };
    if (this.fitted) this.fit();
    else this._place(this.x + dx, this.y + dy);
  }

  show(width, height) {
    this.image = { width, height };
    this.fit();
  }

  /** Fits the image into the stage; small ones are enlarged at most twice. */
  fit() {
    this.scale = Math.min(this.fitScale, 2);
    const { top, right, bottom, left } = this.insets;
    this._place(
      left + (this.stage.width - left - right - this.image.width * this.scale) / 2,
      top + (this.stage.height - top - bottom - this.image.height * this.scale) / 2,
    );
    this.fitted = true;
  }

  /** Zooms around a screen point. */
  zoom(factor, [atX, atY] = [this.stage.width / 2, this.stage.height / 2]) {
    const least = Math.min(this.fitScale, 1) / 2;
    const scale = Math.min(MAX_SCALE, Math.max(least, this.scale * factor));
    const [x, y] = this.toImage([atX, atY]);
    this.scale = scale;
    this.fitted = false;
    this._place(atX - x * scale, atY - y * scale);
  }

  pan(dx, dy) {
    this.fitted = false;
    this._place(this.x + dx, this.y + dy);
  }

  _place(x, y) {
    const { width, height } = this.stage;
    const [w, h] = [this.image.width * this.scale, this.image.height * this.scale];
    const [keepX, keepY] = [Math.min(MIN_VISIBLE, w), Math.min(MIN_VISIBLE, h)];
    this.x = Math.min(width - keepX, Math.max(keepX - w, x));
    this.y = Math.min(height - keepY, Math.max(keepY - h, y));
    this.dispatchEvent(new Event("change"));
  }
}
