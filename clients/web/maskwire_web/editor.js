// Editing an image's objects: clicks, boxes, previews, undo. Keeps session, objects and timeline consistent.

import { ApiError } from "./api.js";
import * as labels from "./labels.js";
import { Item, Objects } from "./objects.js";
import { Mask } from "./rle.js";
import { Session } from "./session.js";
import { Timeline } from "./timeline.js";

const MOST_HOVERS = 2; // on their way at the same time
const CANDIDATES = 3; // of the model, for a lone click

/**
 * Fires "change" when something must be redrawn, "answer" with detail {timings, tookMs, here, isSharp} for each
 * mask, and "error" with detail ApiError.
 */
export class Editor extends EventTarget {
  /** @param local LocalDecoding */
  constructor(local) {
    super();
    this._local = local;
    this.sharpen = async () => null; // (image, prompt, extent) => SegmentResponse from near by, or null; set by the page
    this.timeline = new Timeline();
    this._setObjects();
    this.preview = null; // {mask, box} under the pointer
    this._epoch = 0; // previews that were requested before the last change are not shown
    this._last = Promise.resolve(); // the last change of an object
    this._hovers = new Set(); // promises of those that are on their way
  }

  /**
   * Opens an image.
   *
   * @param store as in Session
   * @param rows its stored objects
   */
  open(api, store, rows = []) {
    this.close();
    this._setObjects(rows);
    this.session = new Session(api, store, this._local);
    for (const item of this.objects.items) item.history.steps.forEach(() => this.timeline.push(this._entry(item)));
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
    return this._change((history) => history.add({ add_point: point }), { point });
  }

  box(box) {
    return this._change((history) => history.add({ set_box: box }), { box });
  }

  /** Takes another of the model's candidates for a lone click: the next of the three that differs. */
  async chooseCandidate() {
    const { selected: item } = this.objects;
    if (!item.mask || !item.history.hasCandidates) return;
    const { answered } = item;
    for (let tries = 0; tries < 2 && item.answered === answered; tries++) {
      await this._change((history) => (history.hasCandidates ? history.add({ choose: (history.candidate % CANDIDATES) + 1 }) : null));
    }
  }

  /** Changes the selected object's mask by hand; @param edit see `edited` in drawing.js */
  edit(edit) {
    return this._change((history) => history.add({ edit }));
  }

  /** @param point of the selected object's prompt; its place in the list may change until it is removed */
  removePoint(point) {
    return this._change((history) => {
      const index = history.prompt.points.indexOf(point);
      return index < 0 ? null : history.add({ remove_point: index });
    });
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

  /** Ends the preview: the pointer is over nothing. */
  leave() {
    this._epoch++;
    if (this.preview) {
      this.preview = null;
      this._changed();
    }
  }

  /** Deletes an object; can be undone. */
  delete(item) {
    const { objects } = this;
    if (item.isEmpty) return;
    let at = 0;
    const redo = () => {
      at = objects.remove(item);
    };
    const undo = () => objects.insert(item, at);
    this.leave();
    redo();
    this.timeline.push({ undo, redo });
  }

  /** Gives an object another label; can be undone, but for one that has nothing yet. */
  label(item, label) {
    const { label: before } = item;
    const give = (name) => () => {
      item.label = name;
      this._changed();
    };
    give(label)();
    if (!item.isEmpty) this.timeline.push({ undo: give(before), redo: give(label) });
  }

  /** Makes objects of generated masks; can be undone. */
  keep(found) {
    const { objects } = this;
    const items = found.map((one) => objects.add().generate(one));
    const undo = () => items.forEach((item) => objects.remove(item));
    const redo = () => items.forEach((item) => objects.insert(item, objects.items.length));
    if (items.length) objects.select(items[items.length - 1]);
    this.timeline.push({ undo, redo });
  }

  /**
   * @param change (History) => History, or null if there is nothing to do any more
   * @param shown {point} or {box}, to be drawn at once; absent for changes by hand
   */
  async _change(change, shown = null) {
    const { session, objects } = this;
    if (!session) return;
    if (objects.selected.generated && shown) objects.begin(); // clicks do not change a generated mask
    const item = objects.selected;
    const entry = this._entry(item);
    this.timeline.push(entry);
    if (shown) item.pending.push(shown);
    this.leave();
    this._changed();
    entry.failed = !(await this._make(item, change));
    item.pending = item.pending.filter((other) => other !== shown);
    if (entry.failed) this.timeline.drop(entry);
    this._changed();
  }

  /** The timeline's entry for a step of an object. Undoing and redoing a step that failed changes nothing. */
  _entry(item) {
    const entry = { failed: false };
    const again = (change) => () => {
      this.objects.select(item);
      this.leave();
      return this._make(item, (history) => (entry.failed ? null : change(history)));
    };
    return Object.assign(entry, { undo: again((history) => history.undo()), redo: again((history) => history.redo()) });
  }

  /** Changes an object's history, once the changes before it were answered. Resolves to whether it succeeded. */
  _make(item, change) {
    const { session } = this;
    this._last = this._last.then(() => this._update(session, item, change(item.history)));
    return this._last;
  }

  async _update(session, item, history) {
    if (!history) return false;
    const start = performance.now();
    try {
      const isKnown = history.isEmpty || item.has(history);
      const response = isKnown ? null : await session.segment(item.id, history.prompts);
      item.update(history, response);
      if (response) {
        this._answered(response, start);
        if (!response.here) this._sharpen(session, item, start);
      }
    } catch (error) {
      const detail = error instanceof ApiError ? error : new ApiError(`The server's answer cannot be read: ${error.message}`);
      if (session === this.session) this.dispatchEvent(new CustomEvent("error", { detail }));
      return false;
    }
    this._changed();
    return true;
  }

  /** Puts an answer from near by in the place of the whole picture's, unless the object has changed meanwhile. */
  async _sharpen(session, item, start) {
    const { history } = item;
    if (history.edits.length) return;
    const prompt = { prompt_id: item.id, steps: history.prompts };
    const response = await this.sharpen(session.image, prompt, history.prompt).catch(() => null); // the first answer stays
    if (!response || session !== this.session || item.history !== history) return;
    if (response.results[0].masks[0].score < item.score) return; // of a part of a large object the model is not sure
    item.sharpen(response);
    this._answered({ ...response, isSharp: true }, start);
    this._changed();
  }

  async _hover(step, box) {
    const hover = (this._newestHover = { epoch: this._epoch });
    await this._last;
    while (this._hovers.size >= MOST_HOVERS) await Promise.race(this._hovers);
    if (!this.session || hover !== this._newestHover || hover.epoch !== this._epoch) return;
    const start = performance.now();
    const { generated, id, history } = this.objects.selected;
    const request = this.session
      .segment(generated ? "next" : id, history.add(step).prompts, true)
      .catch(() => null); // the click will say what is wrong
    this._hovers.add(request);
    const response = await request;
    this._hovers.delete(request);
    const best = response?.results?.[0]?.masks?.[0];
    if (!best || hover.epoch !== this._epoch) return;
    this.preview = { mask: new Mask(best.rle), box: this.preview?.box ?? box, score: best.score };
    this._answered(response, start);
    this._changed();
  }

  _answered({ timings, here = "", isSharp = false }, start) {
    const tookMs = performance.now() - start;
    this.dispatchEvent(new CustomEvent("answer", { detail: { timings, tookMs, here, isSharp } }));
  }

  _setObjects(rows) {
    this.objects = new Objects(rows, (number) => Object.assign(new Item(number), { label: labels.current() }));
    this.objects.addEventListener("change", () => this._changed());
    this._changed();
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}
