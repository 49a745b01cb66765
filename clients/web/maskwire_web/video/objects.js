// The objects of a clip: their prompts and masks on each frame.

import { COLOURS } from "../colours.js";
import { Mask, decodeCounts } from "../rle.js";

const NOTHING = { points: [], box: null };

/** Whether run lengths have no pixel inside. */
const isEmptyMask = ({ counts }) => decodeCounts(counts).length < 2;

export class TrackItem {
  /**
   * @param number from 1; gives the colour and the first name
   * @param at {frame, frames}: the frame that is shown, and how many there are
   */
  constructor(number, at) {
    this.id = `object-${number}`; // also its object_id
    this.name = `Object ${number}`;
    this.colour = COLOURS[(number - 1) % COLOURS.length];
    this.visible = true;
    this.pending = []; // clicks and boxes that were not answered yet, with their frame
    this.prompts = new Map(); // frame -> {points, box}
    this.found = new Map(); // frame -> {rle, version}: the newest mask, and of which version of the prompts
    this.version = 0; // of the prompts: masks of earlier ones are out of date
    this._at = at;
  }

  get isEmpty() {
    return !this.prompts.size && !this.found.size && !this.pending.length;
  }

  /** The prompt on the frame that is shown. */
  get prompt() {
    return this.prompts.get(this._at.frame) ?? NOTHING;
  }

  /** The mask on the frame that is shown; null without one, also where the object is not to be seen. */
  get mask() {
    const rle = this.found.get(this._at.frame)?.rle;
    if (this._rle !== rle) {
      this._rle = rle;
      this._mask = rle && !isEmptyMask(rle) ? new Mask(rle) : null;
    }
    return rle ? this._mask : null;
  }

  /** @param rle its mask on a frame; `isPrompt`: the answer to a new prompt */
  take(frame, rle, isPrompt = false) {
    if (isPrompt) this.version++;
    this.found.set(frame, { rle, version: this.version, isEmpty: isEmptyMask(rle) });
  }

  get summary() {
    if (!this.found.size) return "";
    const { length: seen } = [...this.found.values()].filter(({ isEmpty }) => !isEmpty);
    return `on ${seen} of ${this._at.frames} frames`;
  }
}
