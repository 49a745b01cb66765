// Editing a track: clicks and boxes on frames, undo, following. Keeps track, objects and timeline consistent.

import { ApiError } from "../api.js";
import { Objects } from "../objects.js";
import { Timeline } from "../timeline.js";
import { TrackItem } from "./objects.js";
import { Track } from "./track.js";

/**
 * Fires "change" when something must be redrawn, "found" with detail FrameMasks for each frame that was followed, and
 * "error" with detail ApiError. Pointing uses it as it uses the picture page's Editor.
 */
export class TrackEditor extends EventTarget {
  constructor() {
    super();
    this.timeline = new Timeline();
    this.at = { frame: 0, frames: 0 };
    this.preview = null; // {box} while it is drawn
    this.following = null; // {reverse, done, total}
    this.track = null;
    this._last = Promise.resolve();
    this._setObjects();
  }

  /** @param how {model, handOver}, and `progress` and `state` as in Track */
  open(api, clip, how) {
    this.close();
    this.at = { frame: 0, frames: clip.length };
    this._setObjects();
    this.track = new Track(api, clip, () => this._allPrompts(), how);
    return this.track;
  }

  close() {
    this.track?.close();
    this.track = this.following = this.preview = null;
    this.timeline.clear();
    this._setObjects();
  }

  show(frame) {
    this.at.frame = frame;
    this.preview = null;
    this._changed();
  }

  // What Pointing calls

  click(x, y, negative) {
    const point = { x_px: x, y_px: y, label: negative ? 0 : 1 };
    return this._change(({ points, box }) => ({ points: [...points, point], box }), { point });
  }

  /** A box replaces the clicks on its frame, as in SAM2VideoPredictor. */
  box(box) {
    return this._change(() => ({ points: [], box }), { box });
  }

  removePoint(point) {
    return this._change(({ points, box }) => ({ points: points.filter((other) => other !== point), box }));
  }

  hover() {}

  hoverBox(box) {
    this.preview = { box };
    this._changed();
  }

  leave() {
    if (!this.preview) return;
    this.preview = null;
    this._changed();
  }

  // Objects

  /** Deletes an object; can be undone. */
  delete(item) {
    if (item.isEmpty || !this.track) return;
    const { objects } = this;
    let at = 0;
    const redo = () => this._do(async (track) => {
      if (item.prompts.size) await track.prompt({ object_id: item.id, remove: {} });
      at = objects.remove(item);
    });
    const undo = () => this._do(async (track) => {
      for (const [frame, prompt] of item.prompts) await track.prompt(pointsOf(item, frame, prompt));
      objects.insert(item, at);
    });
    redo();
    this.timeline.push({ undo, redo });
  }

  _allPrompts() {
    return this.objects.items.flatMap((item) => [...item.prompts].map(([frame, prompt]) => pointsOf(item, frame, prompt)));
  }

  /**
   * @param change ({points, box}) => the prompt instead of it
   * @param shown {point} or {box}, to be drawn at once
   */
  async _change(change, shown) {
    if (!this.track) return;
    const item = this.objects.selected;
    const { frame } = this.at;
    const entry = { failed: false };
    let before = null;
    let after = null;
    const redo = () => this._set(item, frame, after);
    const undo = () => (entry.failed ? true : this._set(item, frame, before));
    Object.assign(entry, { undo, redo });
    this.timeline.push(entry);
    if (shown) item.pending.push({ ...shown, frame });
    this.preview = null;
    this._changed();
    this.stop();
    const done = await this._do(async (track) => {
      before = item.prompts.get(frame) ?? null;
      after = change(before ?? { points: [], box: null });
      await give(track, item, frame, after);
    });
    item.pending = item.pending.filter((other) => other.point !== shown?.point || other.box !== shown?.box);
    entry.failed = !done;
    if (entry.failed) this.timeline.drop(entry);
    this._changed();
  }

  _set(item, frame, prompt) {
    this.stop();
    return this._do(async (track) => {
      await give(track, item, frame, prompt);
      this.objects.select(item);
    });
  }

  /** Does something after what came before. Resolves to whether it succeeded. */
  _do(action) {
    const { track } = this;
    this._last = this._last.then(async () => {
      if (!track || track !== this.track) return false;
      try {
        await action(track);
      } catch (error) {
        if (track === this.track) this._tell("error", error instanceof ApiError ? error : new ApiError(`The server's answer cannot be read: ${error.message}`));
        return false;
      }
      this._changed();
      return true;
    });
    return this._last;
  }

  // Following

  /** Follows all objects from the frame that is shown, or where nothing is known of it, from the first with a prompt. */
  follow(reverse) {
    const { frame, frames } = this.at;
    const { items } = this.objects;
    const isKnown = items.some((item) => item.found.has(frame));
    const isEnd = frame === (reverse ? 0 : frames - 1);
    const prompted = items.flatMap((item) => [...item.prompts.keys()]);
    if (!prompted.length) return;
    const first = reverse ? Math.max(...prompted) : Math.min(...prompted);
    const start = isKnown && !isEnd ? frame : first;
    this.following = { reverse, done: 0, total: reverse ? start + 1 : frames - start };
    const mine = this.following;
    this._changed();
    this._do(async (track) => {
      if (mine !== this.following) return; // it was stopped before it began
      try {
        await track.follow({ start, reverse }, (masks) => {
          mine.done++;
          for (const found of masks.objects) {
            const item = items.find(({ id }) => id === found.object_id);
            item?.take(masks.frame, found.mask.rle);
          }
          if (mine === this.following) this._tell("found", masks);
        });
      } finally {
        if (mine === this.following) this.following = null;
      }
    });
  }

  /** Ends the follow that is under way; what was found stays. */
  stop() {
    if (!this.following) return;
    this.following = null;
    this.track.stop();
    this._changed();
  }

  _setObjects() {
    this.objects = new Objects([], (number) => new TrackItem(number, this.at));
    this.objects.addEventListener("change", () => this._changed());
    this._changed();
  }

  _tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}

const pointsOf = (item, frame, { points, box }) => ({ object_id: item.id, frame, points: { points, ...(box && { box }) } });

/** Makes a prompt that of an object on a frame; null or an empty one takes back what is there. */
async function give(track, item, frame, prompt) {
  if (prompt?.points.length || prompt?.box) {
    const masks = await track.prompt(pointsOf(item, frame, prompt));
    item.prompts.set(frame, prompt);
    item.take(frame, masks.objects[0].mask.rle, true);
  } else if (item.prompts.has(frame)) {
    await track.prompt({ object_id: item.id, frame, clear: {} });
    item.prompts.delete(frame);
    item.found.delete(frame);
    item.version++;
  }
}
