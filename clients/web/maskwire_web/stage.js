// Two canvases over one another: the picture, drawn anew when the view moves, and what lies over it.

import { outlines, pathOf } from "./contours.js";

const SMALL_SIDE = 2048; // of the reduced copy that large pictures are drawn from while they are zoomed out
const CRISP_SCALE = 3; // device pixels for one of the image, from which on its pixels show as squares

export class Stage {
  constructor(picture, overlay, viewport) {
    this.picture = picture.getContext("2d", { alpha: true });
    this.overlay = overlay.getContext("2d");
    this.viewport = viewport;
    this.bitmap = null;
    this._paths = new WeakMap(); // Mask -> Path2D
    this._stale = new Set();
    viewport.addEventListener("change", () => this.draw("picture", "overlay"));
    new ResizeObserver(() => this._resize()).observe(overlay);
    this._followRatio();
  }

  /** @param scene () => what to draw over the picture: see _drawOverlay */
  set scene(scene) {
    this._scene = scene;
    this.draw("overlay");
  }

  /** Shows a bitmap, or nothing. */
  async show(bitmap) {
    if (bitmap === this.bitmap) return;
    this.bitmap = bitmap;
    this._small = null;
    this.draw("picture", "overlay");
    if (!bitmap) return;
    this.viewport.show(bitmap.width, bitmap.height);
    const share = SMALL_SIDE / Math.max(bitmap.width, bitmap.height);
    if (share > 0.7) return;
    const small = await createImageBitmap(bitmap, {
      resizeWidth: Math.max(1, Math.round(bitmap.width * share)),
      resizeHeight: Math.max(1, Math.round(bitmap.height * share)),
      resizeQuality: "high",
    }).catch(() => null); // closed meanwhile
    if (!small || this.bitmap !== bitmap) return;
    this._small = small;
    this.draw("picture");
  }

  /** Draws canvases anew with the next frame. */
  draw(...which) {
    if (!this._stale.size) requestAnimationFrame(() => this._drawNow());
    which.forEach((name) => this._stale.add(name));
  }

  _drawNow() {
    const stale = new Set(this._stale);
    this._stale.clear();
    if (stale.has("picture")) this._drawPicture();
    if (stale.has("overlay")) this._drawOverlay();
  }

  _resize() {
    const { clientWidth: width, clientHeight: height } = this.overlay.canvas;
    this.ratio = devicePixelRatio;
    for (const { canvas } of [this.picture, this.overlay]) {
      canvas.width = Math.round(width * this.ratio);
      canvas.height = Math.round(height * this.ratio);
    }
    this.viewport.resize(width, height);
    this.draw("picture", "overlay");
  }

  /** The window may move to a screen with another pixel ratio. */
  _followRatio() {
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener(
      "change",
      () => {
        this._resize();
        this._followRatio();
      },
      { once: true },
    );
  }

  /** Clears a canvas and sets its coordinates to those of the image. */
  _prepare(context) {
    const { scale, x, y } = this.viewport;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.setTransform(scale * this.ratio, 0, 0, scale * this.ratio, x * this.ratio, y * this.ratio);
  }

  _drawPicture() {
    const { picture: context, bitmap } = this;
    this._prepare(context);
    if (!bitmap) return;
    const scale = this.viewport.scale * this.ratio;
    const small = this._small && scale * bitmap.width <= this._small.width;
    context.imageSmoothingEnabled = scale < CRISP_SCALE;
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // what servers lay under transparent images
    context.fillRect(1 / scale, 1 / scale, bitmap.width - 2 / scale, bitmap.height - 2 / scale); // no white fringe
    context.drawImage(small ? this._small : bitmap, 0, 0, bitmap.width, bitmap.height);
  }

  _drawOverlay() {
    const { overlay: context, bitmap } = this;
    this._prepare(context);
    if (!bitmap || !this._scene) return;
    const { items, selected, preview, layer, lit, cursor } = this._scene();
    for (const item of items) {
      if (item.mask && item.visible) this._drawMask(item.mask, item.colour, this._strength(item, selected, layer));
    }
    if (layer) context.drawImage(layer, 0, 0, bitmap.width, bitmap.height);
    if (lit) this._drawMask(lit.mask, "#ffffff", { fill: 0.25, width: 2 });
    const tint = selected.generated ? "#ffffff" : selected.colour; // a generated mask stays, the click is a new object's
    if (preview?.mask) this._drawPreview(preview.mask, tint, selected.isEmpty || selected.generated);
    for (const item of items) {
      if (item.visible && (item === selected || item.pending.length)) this._drawPrompt(item, preview, item === selected);
    }
    if (preview?.box) this._drawBox(preview.box, tint);
    if (cursor) this._drawCursor(cursor);
  }

  /** Everything mode's masks, where they are shown, are what people look at: objects are outlines then. */
  _strength(item, selected, layer) {
    if (layer) return { fill: 0, width: 1 };
    return item === selected ? { fill: 0.42, width: 2 } : { fill: 0.3, width: 1 };
  }

  /** What a click would give: filled for a new object; an outline over the mask that the object has already. */
  _drawPreview(mask, colour, isNew) {
    if (!isNew) this._drawMask(mask, "#ffffff", { fill: 0, width: 3.5 });
    this._drawMask(mask, colour, { fill: isNew ? 0.34 : 0, width: isNew ? 1.5 : 2, dash: [5, 4] });
  }

  _drawMask(mask, colour, { fill, width, dash = [] }) {
    const { overlay: context } = this;
    if (!this._paths.has(mask)) this._paths.set(mask, pathOf(outlines(mask)));
    const path = this._paths.get(mask);
    context.fillStyle = context.strokeStyle = colour;
    if (fill) {
      context.globalAlpha = fill;
      context.fill(path, "evenodd");
      context.globalAlpha = 1;
    }
    context.lineJoin = "round";
    context.lineWidth = width / this.viewport.scale;
    context.setLineDash(dash.map((length) => length / this.viewport.scale));
    context.stroke(path);
    context.setLineDash([]);
  }

  /** Clicks and boxes that were answered, and, drawn as such, those that wait. */
  _drawPrompt(item, preview, isSelected) {
    const { colour, pending, prompt } = item;
    if (isSelected) {
      if (prompt.box && !preview?.box && !pending.some(({ box }) => box)) this._drawBox(prompt.box, colour);
      for (const point of prompt.points) this._drawPoint(point, colour);
    }
    for (const { point, box } of pending) {
      if (box) this._drawBox(box, colour, [6, 5]);
      if (point) this._drawWaiting(point, colour);
    }
  }

  /** A click that was not answered yet: a hollow, broken ring. */
  _drawWaiting({ x_px, y_px }, colour) {
    const { overlay: context, viewport } = this;
    context.save();
    context.translate(x_px, y_px);
    context.scale(1 / viewport.scale, 1 / viewport.scale);
    context.beginPath();
    context.arc(0, 0, 9, 0, 2 * Math.PI);
    for (const [style, width, dash] of [["#fff", 4, []], [colour, 2, [4, 3]]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.setLineDash(dash);
      context.stroke();
    }
    context.restore();
  }

  /** A disc with a plus in the object's colour; for a click outside a minus, the other way round. */
  _drawPoint({ x_px = 0, y_px = 0, label }, colour) {
    const { overlay: context, viewport } = this;
    const inside = label !== 0;
    context.save();
    context.translate(x_px, y_px);
    context.scale(1 / viewport.scale, 1 / viewport.scale);
    context.beginPath();
    context.arc(0, 0, 7, 0, 2 * Math.PI);
    context.shadowColor = "rgb(0 0 0 / 45%)";
    context.shadowBlur = 4 * this.ratio;
    context.fillStyle = inside ? colour : "#fff";
    context.fill();
    context.shadowBlur = 0;
    context.lineWidth = 1.5;
    context.strokeStyle = inside ? "#fff" : colour;
    context.stroke();
    context.beginPath();
    context.moveTo(-3.2, 0);
    context.lineTo(3.2, 0);
    if (inside) {
      context.moveTo(0, -3.2);
      context.lineTo(0, 3.2);
    }
    context.stroke();
    context.restore();
  }

  _drawBox({ x_min_px = 0, y_min_px = 0, x_max_px = 0, y_max_px = 0 }, colour, dash = []) {
    const { overlay: context, viewport } = this;
    const box = [x_min_px, y_min_px, x_max_px - x_min_px, y_max_px - y_min_px];
    for (const [style, width, dashes] of [["rgb(255 255 255 / 80%)", 3.5, []], [colour, 1.75, dash]]) {
      context.strokeStyle = style;
      context.lineWidth = width / viewport.scale;
      context.setLineDash(dashes.map((length) => length / viewport.scale));
      context.strokeRect(...box);
    }
    context.setLineDash([]);
  }

  /** The keyboard's place: a cross that shows on anything. */
  _drawCursor([x, y]) {
    const { overlay: context, viewport } = this;
    context.save();
    context.translate(x, y);
    context.scale(1 / viewport.scale, 1 / viewport.scale);
    for (const [style, width] of [["#000", 3], ["#fff", 1.25]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(3 * dx, 3 * dy);
        context.lineTo(12 * dx, 12 * dy);
      }
      context.stroke();
    }
    context.restore();
  }
}
