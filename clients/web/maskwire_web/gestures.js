// Recognizes gestures of mouse, pen and fingers on the stage. Points are in screen coordinates of the viewport.

// How far the pointer may move between press and release to count as a click, in CSS pixels. Less with the box tool, so
// that small boxes can be drawn.
const CLICK_TRAVEL = { mouse: 14, pen: 14, touch: 16 };
const BOX_TOOL_TRAVEL = { mouse: 4, pen: 6, touch: 16 };

/**
 * Reports to `on`: hover(at, event), leave(), tap(at, {negative, alternate}), drag(from, to), dragged(from, to),
 * cancelled(), pan(dx, dy), zoom(factor, at); with tools that draw, draw(at, {pointerType, alternate}) at first,
 * drawing(at) and drawn() instead of taps and drags.
 */
export class Gestures {
  /**
   * @param tool () => the selected tool
   * @param draws (tool) => whether presses and drags with it draw
   */
  constructor(element, tool, draws, on) {
    this.element = element;
    this.tool = tool;
    this.draws = draws;
    this.on = on;
    this.spaceHeld = false;
    this._pointers = new Map();
    this._gesture = null; // null, "maybe tap", "box", "draw", "pan", "pinch" or "spent"
    for (const [name, handle] of Object.entries({
      pointerdown: this._down,
      pointermove: this._move,
      pointerup: this._up,
      pointercancel: this._lost,
      pointerleave: (event) => event.pointerType !== "touch" && this.on.leave(),
      contextmenu: (event) => event.preventDefault(),
      touchstart: (event) => event.preventDefault(), // else the browser starts a fling at the end of a swipe, and swallows the next tap
      wheel: this._wheel,
    })) {
      element.addEventListener(name, handle.bind(this), { passive: false });
    }
  }

  /** Cancels the current gesture; returns whether there was one. */
  cancel() {
    const busy = ["box", "draw"].includes(this._gesture);
    if (busy) this.on.cancelled();
    if (this._gesture) this._gesture = "spent";
    return busy;
  }

  _at(event) {
    const edge = this.element.getBoundingClientRect();
    return [event.clientX - edge.left, event.clientY - edge.top];
  }

  _down(event) {
    if (event.pointerType === "mouse" && event.button > 2) return;
    this.element.setPointerCapture(event.pointerId);
    this.element.focus({ preventScroll: true });
    const at = this._at(event);
    this._pointers.set(event.pointerId, { at });
    if (this._pointers.size === 2) {
      this.cancel();
      this._gesture = "pinch";
    } else if (this._pointers.size > 2) {
      this._gesture = "spent";
    } else {
      this._start = at;
      this._button = event.button;
      this._gesture = this.spaceHeld || event.button === 1 ? "pan" : this.draws(this.tool()) ? "draw" : "maybe tap";
      if (this._gesture === "draw") this.on.draw(at, { pointerType: event.pointerType, alternate: event.altKey });
    }
    event.preventDefault();
  }

  _move(event) {
    const at = this._at(event);
    const pointer = this._pointers.get(event.pointerId);
    if (!pointer) {
      if (event.pointerType !== "touch") this.on.hover(at, event);
      return;
    }
    const before = pointer.at;
    if (this._gesture === "pinch") this._pinch(pointer, at);
    pointer.at = at;
    if (this._gesture === "maybe tap") this._decide(event, at);
    else if (this._gesture === "pan") this.on.pan(at[0] - before[0], at[1] - before[1]);
    if (this._gesture === "box") this.on.drag(this._start, at);
    if (this._gesture === "draw") this.on.drawing(at);
  }

  _decide(event, at) {
    const isBoxTool = this.tool() === "box";
    const [dx, dy] = [at[0] - this._start[0], at[1] - this._start[1]];
    if (Math.hypot(dx, dy) <= (isBoxTool ? BOX_TOOL_TRAVEL : CLICK_TRAVEL)[event.pointerType]) return;
    if (this._button === 2) this._gesture = "spent";
    else if (event.pointerType === "touch" && !isBoxTool) {
      this._gesture = "pan";
      this.on.pan(dx, dy);
    } else this._gesture = "box";
  }

  _pinch(pointer, at) {
    const [other] = [...this._pointers.values()].filter((p) => p !== pointer);
    const middle = (p) => [(p[0] + other.at[0]) / 2, (p[1] + other.at[1]) / 2];
    const spread = (p) => Math.max(8, Math.hypot(p[0] - other.at[0], p[1] - other.at[1]));
    const [from, to] = [middle(pointer.at), middle(at)];
    this.on.pan(to[0] - from[0], to[1] - from[1]);
    this.on.zoom(spread(at) / spread(pointer.at), to);
  }

  _up(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    const at = this._at(event);
    const gesture = this._gesture;
    this._gesture = this._pointers.size ? "spent" : null;
    if (gesture === "box") this.on.dragged(this._start, at);
    if (gesture === "draw") this.on.drawn();
    if (gesture === "maybe tap") {
      const negative = event.shiftKey || this._button === 2 || this.tool() === "exclude";
      this.on.tap(this._start, { negative, alternate: event.altKey });
    }
  }

  _lost(event) {
    if (!this._pointers.delete(event.pointerId)) return;
    this.cancel();
    if (!this._pointers.size) this._gesture = null;
  }

  _wheel(event) {
    event.preventDefault();
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 24;
    const [dx, dy] = [event.deltaX * unit, event.deltaY * unit];
    if (event.shiftKey || Math.abs(dx) > Math.abs(dy)) this.on.pan(-(dx || dy), event.shiftKey ? 0 : -dy);
    else this.on.zoom(Math.exp(-dy * (event.ctrlKey ? 0.01 : 0.0015)), this._at(event));
  }
}
