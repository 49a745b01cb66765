// Draws the strip under the frame: thumbnails, and for each object where it was clicked and where it was found.

const THUMB_PX = 44; // height of thumbnails in CSS pixels
const ROW_PX = 12;
const GAP_PX = 4;

export class TimelineView {
  /** @param on {seek(frame)}: dragging or clicking the strip */
  constructor(canvas, on) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.clip = null;
    this._thumbs = new Map(); // frame -> ImageBitmap, or null while it is made
    this._isStale = false;
    this.scene = () => ({ items: [], frame: 0, selected: null });
    new ResizeObserver(() => this._forgetThumbs()).observe(canvas);
    const seek = (event) => {
      const { left, width } = canvas.getBoundingClientRect();
      const frame = Math.floor(((event.clientX - left) / width) * this.clip.length);
      on.seek(Math.min(this.clip.length - 1, Math.max(0, frame)));
    };
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      seek(event);
    };
    canvas.onpointermove = (event) => event.buttons & 1 && seek(event);
    canvas.onkeydown = (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      on.seek(Math.min(this.clip.length - 1, Math.max(0, this.scene().frame + by)));
    };
  }

  show(clip) {
    this.clip = clip;
    this._forgetThumbs();
  }

  /** Redraws in the next frame. */
  draw() {
    if (this._isStale) return;
    this._isStale = true;
    requestAnimationFrame(() => {
      this._isStale = false;
      if (this.clip) this._drawNow();
    });
  }

  _forgetThumbs() {
    for (const thumb of this._thumbs.values()) thumb?.close();
    this._thumbs.clear();
    this.draw();
  }

  _drawNow() {
    const { canvas, context, clip } = this;
    const { items, frame, selected } = this.scene();
    const { clientWidth: width } = canvas;
    const rows = items.filter((item) => !item.isEmpty);
    const height = THUMB_PX + GAP_PX + Math.max(1, rows.length) * ROW_PX;
    const ratio = devicePixelRatio;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this._drawThumbs(width);
    const step = width / clip.length;
    rows.forEach((item, row) => this._drawRow(item, THUMB_PX + GAP_PX + row * ROW_PX, step, item === selected));
    const x = (frame + 0.5) * step;
    const style = getComputedStyle(canvas);
    context.fillStyle = style.getPropertyValue("--accent");
    context.globalAlpha = 0.22;
    context.fillRect(frame * step, 0, Math.max(step, 1), height);
    context.globalAlpha = 1;
    context.fillRect(x - 1, 0, 2, height);
  }

  _drawThumbs(width) {
    const { context, clip } = this;
    const wide = (THUMB_PX * clip.width) / clip.height;
    const count = Math.max(1, Math.min(clip.length, Math.round(width / wide)));
    const each = width / count;
    for (let place = 0; place < count; place++) {
      const frame = Math.min(clip.length - 1, Math.floor(((place + 0.5) / count) * clip.length));
      const thumb = this._thumb(frame);
      if (!thumb) continue;
      const shown = Math.min(thumb.width, (thumb.height * each) / THUMB_PX); // what fits of its middle
      const high = Math.min(thumb.height, (thumb.width * THUMB_PX) / each);
      context.drawImage(thumb, (thumb.width - shown) / 2, (thumb.height - high) / 2, shown, high, place * each, 0, each, THUMB_PX);
    }
  }

  _thumb(frame) {
    if (!this._thumbs.has(frame)) {
      this._thumbs.set(frame, null);
      const { clip } = this;
      const how = { resizeHeight: Math.round(THUMB_PX * devicePixelRatio), resizeQuality: "medium", imageOrientation: "from-image" };
      createImageBitmap(clip.frames[frame].blob, how).then((thumb) => {
        if (clip === this.clip && this._thumbs.has(frame)) this._thumbs.set(frame, thumb);
        this.draw();
      }, () => {});
    }
    return this._thumbs.get(frame);
  }

  /** Where an object was found: filled, paler where its prompts have changed since; and diamonds where it was clicked. */
  _drawRow(item, top, step, isSelected) {
    const { context } = this;
    const middle = top + ROW_PX / 2;
    context.fillStyle = item.colour;
    for (const [frame, { version, isEmpty }] of item.found) {
      if (isEmpty) continue;
      context.globalAlpha = (version === item.version ? 1 : 0.4) * (isSelected ? 1 : 0.75);
      context.fillRect(frame * step, middle - 2.5, Math.max(step, 1) + 0.3, 5);
    }
    context.globalAlpha = 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 1.25;
    for (const frame of item.prompts.keys()) {
      context.save();
      context.translate((frame + 0.5) * step, middle);
      context.rotate(Math.PI / 4);
      context.fillRect(-3.5, -3.5, 7, 7);
      context.strokeRect(-3.5, -3.5, 7, 7);
      context.restore();
    }
  }
}
