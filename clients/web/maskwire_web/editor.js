// What people do to an image: clicks and boxes on objects, previews, undo. Keeps session, objects and timeline in step.

import { Objects } from "./objects.js";
import { Mask } from "./rle.js";
import { Session } from "./session.js";
import { Timeline } from "./timeline.js";

/**
 * Fires "change" when something is to be drawn anew, "answer" with detail {timings, roundTripMs} for each mask, and
 * "error" with detail ApiError.
 */
export class Editor extends EventTarget {
  constructor() {
    super();
    this.timeline = new Timeline();
    this._setObjects();
    this.preview = null; // {mask, box} of what the pointer is over
    this._epoch = 0; // previews asked for before the last change are not shown
  }

  /**
   * Begins with an image.
   *
   * @param store as in Session
   * @param rows its objects, as they were stored
   */
  open(api, store, rows = []) {
    this.close();
    this._setObjects(rows);
    const clicked = rows.map((row, index) => [this.objects.items[index], row]).filter(([, { steps }]) => steps.length);
    this.session = new Session(api, store, new Map(clicked.map(([{ id }, { steps, undone }]) => [id, { steps, undone }])));
    for (const [item, { steps, undone }] of clicked) {
      for (let step = undone; step < steps.length; step++) this.timeline.push(this._entry(item));
    }
    return this.session;
  }

  /** Whether a click or box was not answered yet. */
  get isWaiting() {
    return this.objects.items.some((item) => item.pending.length);
  }

  close() {
    this.session?.close();
    this.session = null;
    this.timeline.clear();
    this._setObjects();
    this.leave();
  }

  click(x, y, negative) {
    const point = { x_px: x, y_px: y, label: negative ? 0 : 1 };
    return this._change({ add_point: point }, { point });
  }

  box(box) {
    return this._change({ set_box: box }, { box });
  }

  removePoint(index) {
    return this._change({ remove_point: index }, null);
  }

  /** The mask that a click would give. */
  hover(x, y, negative) {
    return this._hover({ add_point: { x_px: x, y_px: y, label: negative ? 0 : 1 } }, null);
  }

  hoverBox(box) {
    this.preview = { mask: this.preview?.box ? this.preview.mask : null, box };
    this._changed();
    return this._hover({ set_box: box }, box);
  }

  /** The pointer is over nothing. */
  leave() {
    this._epoch++;
    this.session?.dropHover();
    if (this.preview) {
      this.preview = null;
      this._changed();
    }
  }

  /** Deletes an object; can be undone. */
  delete(item) {
    const { session, objects } = this;
    if (item.isEmpty) return;
    let at = 0;
    let removed = null; // the promise of its history
    const redo = () => {
      at = objects.remove(item);
      removed = session.histories.has(item.id) ? this._guard(session.remove(item.id)) : null;
      return removed;
    };
    const undo = async () => {
      const history = await removed;
      if (history) await this._guard(session.restore(item.id, history));
      objects.insert(item, at);
    };
    this.leave();
    redo();
    this.timeline.push({ undo, redo });
  }

  /** Makes objects of generated masks; can be undone. */
  keep(found) {
    const { objects } = this;
    const items = found.map(({ mask, score, generated }) => Object.assign(objects.add(), { mask, score, generated }));
    const undo = async () => items.forEach((item) => objects.remove(item));
    const redo = async () => items.forEach((item) => objects.insert(item, objects.items.length));
    if (items.length) objects.select(items[items.length - 1]);
    this.timeline.push({ undo, redo });
  }

  async _change(change, shown) {
    const { session, objects } = this;
    if (!session) return;
    if (objects.selected.generated) objects.begin(); // a generated mask stays as it is
    const item = objects.selected;
    const entry = this._entry(item);
    this.timeline.push(entry);
    if (shown) item.pending.push(shown);
    this.leave();
    this._changed();
    const made = await this._send(session, item, change);
    item.pending = item.pending.filter((other) => other !== shown);
    if (!made) this.timeline.drop(entry);
    this._changed();
  }

  /** The timeline's entry for a change of an object. */
  _entry(item) {
    const again = (edit) => async () => {
      this.objects.select(item);
      this.leave();
      await this._send(this.session, item, edit);
    };
    return { undo: again({ undo: {} }), redo: again({ redo: {} }) };
  }

  async _send(session, item, change) {
    const start = performance.now();
    const answer = await this._guard(session.edit(item.id, change));
    if (!answer) return false;
    item.update(answer);
    this._answered(answer, start);
    this._changed();
    return true;
  }

  async _hover(change, box) {
    const { session } = this;
    if (!session) return;
    const epoch = this._epoch;
    const start = performance.now();
    const { selected } = this.objects;
    const id = selected.generated ? "next" : selected.id;
    let answer;
    try {
      answer = await session.hover(id, change);
    } catch {
      return; // the click will say what is wrong
    }
    const best = answer?.result?.results?.[0]?.masks?.[0];
    if (!best || epoch !== this._epoch) return;
    this.preview = { mask: new Mask(best.rle), box: this.preview?.box ?? box, score: best.score };
    this._answered(answer, start);
    this._changed();
  }

  _answered(answer, start) {
    const timings = answer.result?.timings;
    if (!answer.result?.results?.length) return;
    this.dispatchEvent(new CustomEvent("answer", { detail: { timings, roundTripMs: performance.now() - start } }));
  }

  /** The promise's value; undefined after an error, which has been reported. */
  async _guard(promise) {
    try {
      return await promise;
    } catch (error) {
      if (this.session) this.dispatchEvent(new CustomEvent("error", { detail: error }));
      return undefined;
    }
  }

  _setObjects(rows) {
    this.objects = new Objects(rows);
    this.objects.addEventListener("change", () => this._changed());
    this._changed();
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}
