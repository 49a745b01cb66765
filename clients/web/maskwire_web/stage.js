// Draws two stacked canvases: the picture, and an overlay with masks and prompts.

import { outlines, pathOf } from "./contours.js";

const SMALL_SIDE = 2048; // longer side of the reduced copy that is drawn while a large picture is zoomed out
const CRISP_SCALE = 3; // device pixels per image pixel from which on pixels are drawn as squares

export class Stage {
  constructor(picture, overlay, viewport) {
    this.picture = picture.getContext("2d", { alpha: true });
    this.overlay = overlay.getContext("2d");
    this.viewport = viewport;
    this.bitmap = null;
    this.opacity = 0.42; // of the selected object's mask; others are paler
    this._paths = new WeakMap(); // Mask -> Path2D
    this._stale = new Set();
    viewport.addEventListener("change", () => this.draw("picture", "overlay"));
    new ResizeObserver(() => this._resize()).observe(overlay);
    this._followRatio();
  }

  /** @param scene () => what to draw on the overlay: see _drawOverlay */
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
    }).catch(() => null); // the bitmap was closed meanwhile
    if (!small || this.bitmap !== bitmap) return;
    this._small = small;
    this.draw("picture");
  }

  /** Shows another bitmap of the same size at the same place, or the first one. */
  replace(bitmap) {
    const { bitmap: before } = this;
    if (before?.width !== bitmap.width || before.height !== bitmap.height) this.viewport.show(bitmap.width, bitmap.height);
    this.bitmap = bitmap;
    this._small = null;
    this.draw("picture", "overlay");
  }

  /** Redraws canvases in the next frame. */
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

  /** Follows the device pixel ratio, which changes when the window moves to another screen. */
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

  /** Clears a canvas and makes image pixels its coordinates. */
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
    context.fillStyle = "#fff"; // the background that the server puts under transparent images
    context.fillRect(1 / scale, 1 / scale, bitmap.width - 2 / scale, bitmap.height - 2 / scale); // no white fringe
    context.drawImage(small ? this._small : bitmap, 0, 0, bitmap.width, bitmap.height);
  }

  _drawOverlay() {
    const { overlay: context, bitmap } = this;
    this._prepare(context);
    if (!bitmap || !this._scene) return;
    const { items, selected, preview, layer, lit, cursor, hand } = this._scene();
    for (const item of items) {
      if (item.mask && item.visible) this._drawMask(item.mask, item.colour, this._strength(item, selected, layer));
    }
    if (layer) context.drawImage(layer, 0, 0, bitmap.width, bitmap.height);
    if (lit) this._drawMask(lit.mask, "#ffffff", { fill: 0.25, width: 2 });
    const tint = selected.generated ? "#ffffff" : selected.colour; // an automatic mask is not edited: the click begins a new object
    if (preview?.mask) this._drawPreview(preview.mask, tint, selected.isEmpty || selected.generated);
    for (const item of items) {
      if (item.visible && (item === selected || item.pending.length)) this._drawPrompt(item, preview, item === selected);
    }
    if (preview?.box) this._drawBox(preview.box, tint);
    hand?.(context, selected.colour);
    if (cursor) this._drawCursor(cursor);
  }

  /** Fills objects, or only outlines them while automatic masks are shown. */
  _strength(item, selected, layer) {
    if (layer) return { fill: 0, width: 1 };
    return item === selected ? { fill: this.opacity, width: 2 } : { fill: (this.opacity * 5) / 7, width: 1 };
  }

  /** The preview of a click: filled for a new object, an outline if the object has a mask already. */
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

  /** Clicks and boxes, with those that were not answered yet drawn differently. */
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

  /** A click that was not answered yet: a dashed ring. */
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

  /** A disc in the object's colour with a plus; for a click outside of the object, inverted and with a minus. */
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

  /** The keyboard's crosshair, visible on any background. */
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
