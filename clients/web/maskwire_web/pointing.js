// Turns gestures and arrow keys into clicks, boxes and previews on the image.

import { Gestures } from "./gestures.js";
import { HAND_TOOLS, HandTools } from "./hand_tools.js";

const CURSOR_STEP = 12; // CSS pixels; with Shift, one pixel of the image
const LEAST_BOX_PX = 0.5;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Pointing {
  /** @param on {place(imagePlace or null), drawn(), keep(found)} */
  constructor(element, viewport, editor, automaticMasks, on) {
    Object.assign(this, { element, viewport, editor, automaticMasks, on });
    this.image = null; // {width, height}, or null
    this.tool = "include";
    this.lit = null; // the generated mask under the pointer
    this.place = null; // of pointer or cursor, in image pixels
    this._cursor = [0, 0]; // of the keyboard's crosshair, in image pixels
    this._usesKeys = false;
    this.hand = new HandTools(editor, viewport, () => on.drawn());
    this.gestures = new Gestures(element, () => this.tool, () => this._isDrawing, {
      hover: (at, event) => this._hoverAt(viewport.toImage(at), event.shiftKey || this.tool === "exclude"),
      leave: () => this._hoverAt(null),
      tap: (at, how) => this._click(viewport.toImage(at), how),
      drag: (from, to) => this._drag(from, to),
      dragged: (from, to) => this._dragged(from, to),
      cancelled: () => {
        editor.leave();
        this.hand.cancel();
      },
      draw: (at, how) => this.image && this.hand.start(viewport.toImage(at), { ...how, tool: this.tool, image: this.image }),
      drawing: (at) => this.hand.move(viewport.toImage(at)),
      drawn: () => this.hand.end(),
      pan: (dx, dy) => viewport.pan(dx, dy),
      zoom: (factor, at) => viewport.zoom(factor, at),
    });
    element.addEventListener("keydown", (event) => this._key(event));
    element.addEventListener("keyup", (event) => event.key === "Tab" && this._useKeys(true)); // focused by keyboard
    for (const name of ["pointerdown", "pointermove", "blur"]) {
      element.addEventListener(name, () => this._useKeys(false), { capture: true });
    }
    addEventListener("keydown", (event) => event.key === " " && this._space(event, true));
    addEventListener("keyup", (event) => event.key === " " && this._space(event, false));
  }

  show(image) {
    this.image = image;
    this.lit = this.place = null;
    this.on.place(null); // the old one was on another image
    this._cursor = image ? [image.width / 2, image.height / 2].map(Math.round) : [0, 0];
  }

  choose(tool) {
    this.tool = tool;
    this.editor.leave();
    this.hand.hover(null);
  }

  /** (context, colour) draws what the chosen tool does by hand; null with other tools. */
  get drawHand() {
    return this._isDrawing ? (context, colour) => this.hand.draw(context, this.tool, colour) : null;
  }

  /** Whether presses and drags change the mask by hand. */
  get _isDrawing() {
    return HAND_TOOLS.includes(this.tool) && !this.automaticMasks.progress;
  }

  /** The crosshair's position while the keyboard is used, else null. */
  get cursor() {
    return this._usesKeys ? this._cursor : null;
  }

  _useKeys(uses) {
    if (uses === this._usesKeys) return;
    this._usesKeys = uses;
    this.element.classList.toggle("keys", uses);
    this.on.drawn();
  }

  /** A point as it is shown and sent: within the image, rounded to a tenth of a pixel, or a hundredth when zoomed in. */
  _tidy([x, y]) {
    const parts = this.viewport.scale < 8 ? 10 : 100;
    const clamp = (value, most) => Math.min(most, Math.max(0, Math.round(value * parts) / parts));
    return [clamp(x, this.image.width), clamp(y, this.image.height)];
  }

  _isInside([x, y]) {
    return this.image && x >= 0 && y >= 0 && x <= this.image.width && y <= this.image.height;
  }

  _hoverAt(place, negative) {
    if (!place || !this._isInside(place)) place = null;
    this.place = place && this._tidy(place);
    this.on.place(this.place);
    if (this.automaticMasks.progress) {
      this.lit = place && this.automaticMasks.at(...place);
      this.element.classList.toggle("pick", Boolean(this.lit));
      this.on.drawn();
    } else if (this._isDrawing) this.hand.hover(place);
    else if (place && !this.gestures.spaceHeld) this.editor.hover(...this.place, negative);
    else this.editor.leave();
  }

  _click(place, { negative = false, alternate = false }) {
    if (!this._isInside(place)) return;
    this.place = this._tidy(place);
    this.on.place(this.place);
    if (this.automaticMasks.progress) {
      const found = this.automaticMasks.at(...place);
      if (found) this.on.keep([found]);
    } else if (alternate) this._removeNearest(place);
    else this.editor.click(...this.place, negative);
  }

  _removeNearest([x, y]) {
    const { points } = this.editor.objects.selected.prompt;
    const far = points.map(({ x_px = 0, y_px = 0 }) => Math.hypot(x_px - x, y_px - y));
    if (points.length) this.editor.removePoint(points[far.indexOf(Math.min(...far))]);
  }

  _drag(from, to) {
    if (!this.image) return;
    this.on.place(this._tidy(this.viewport.toImage(to)));
    const box = this._box(from, to);
    if (box) this.editor.hoverBox(box);
  }

  _dragged(from, to) {
    const box = this.image && this._box(from, to);
    if (box) this.editor.box(box);
    else this.editor.leave();
  }

  /** The box between two screen points; null if it is too small, or while automatic masks are shown. */
  _box(from, to) {
    const [[x0, y0], [x1, y1]] = [from, to].map((at) => this._tidy(this.viewport.toImage(at)));
    const [left, right] = [Math.min(x0, x1), Math.max(x0, x1)];
    const [top, bottom] = [Math.min(y0, y1), Math.max(y0, y1)];
    if (this.automaticMasks.progress || right - left < LEAST_BOX_PX || bottom - top < LEAST_BOX_PX) return null;
    return { x_min_px: left, y_min_px: top, x_max_px: right, y_max_px: bottom };
  }

  _key(event) {
    if (!this.image || event.ctrlKey || event.metaKey) return;
    const arrow = ARROWS[event.key];
    if (arrow || event.key === "Enter") this._useKeys(true);
    if (event.key === "Enter") this._click(this._cursor, { negative: event.shiftKey, alternate: event.altKey });
    else if (arrow) {
      const step = event.shiftKey ? 1 : CURSOR_STEP / this.viewport.scale;
      this._cursor = this._tidy([this._cursor[0] + arrow[0] * step, this._cursor[1] + arrow[1] * step]);
      this._hoverAt(this._cursor, this.tool === "exclude");
      this.on.drawn();
    } else return;
    event.preventDefault();
  }

  /** While Space is held, dragging pans the image. On a button, Space presses it. */
  _space(event, held) {
    if (held && event.target !== this.element && event.target !== document.body) return;
    if (held) event.preventDefault();
    this.gestures.spaceHeld = held;
    this.element.classList.toggle("grab", held);
    if (held) this.editor.leave();
  }
}
