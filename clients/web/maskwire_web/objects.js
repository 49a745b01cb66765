// The objects on an image, and which of them clicks are for.

import { History } from "./history.js";
import { newUid } from "./library.js";
import { Mask } from "./rle.js";

// Distinct from one another, and from the colours of most photographs.
export const COLOURS = ["#3d8bfd", "#ff6b4a", "#1fb978", "#f5b700", "#a66bff", "#12b5cb", "#ff5c9e", "#8bc34a", "#ff9142", "#6c7bff"];

export class Item {
  /** @param number from 1; gives the colour and the first name */
  constructor(number) {
    this.id = `object-${number}`; // also its prompt_id
    this.name = `Object ${number}`;
    this.colour = COLOURS[(number - 1) % COLOURS.length];
    this.history = new History();
    this.pending = []; // clicks and boxes that were not answered yet
    this.mask = null;
    this.score = 0;
    this.generated = null; // parameters of an automatic mask, which is not edited: see AutomaticMasks.items
    this.visible = true;
    this.made = Date.now();
    this.uid = newUid(); // key in the browser's storage
    this.revision = 0; // of the stored row
  }

  get isEmpty() {
    return !this.mask && !this.prompt.points.length && !this.prompt.box && !this.pending.length;
  }

  get prompt() {
    return this.history.prompt;
  }

  /** @param response the SegmentResponse for the history; none where the history is empty */
  update(history, response) {
    const best = response?.results[0].masks[0];
    this.mask = best ? new Mask(best.rle) : null;
    this.history = history; // only now: if the response cannot be read, nothing changes
    this.score = best?.score ?? 0;
  }
}

const plain = (mask) => mask && { size: [mask.height, mask.width], counts: mask.counts };

/** An object as a row of the browser's storage; `restored` reads it. */
export function stored(item) {
  const { uid, revision, made, name, visible, score, generated, history } = item;
  const number = Number(item.id.split("-")[1]);
  const { made: steps, undone } = history;
  return { uid, revision, made, number, name, visible, score, generated, mask: plain(item.mask), steps, undone };
}

function restored(row, number) {
  const { uid, revision, made, visible, score, generated } = row;
  const history = new History(row.steps, row.undone);
  const item = Object.assign(new Item(number), { uid, revision, made, visible, score, generated, history });
  if (row.name !== `Object ${row.number}`) item.name = row.name;
  item.mask = row.mask && new Mask(row.mask);
  return item;
}

/** Fires "change" whenever something must be redrawn. */
export class Objects extends EventTarget {
  /**
   * @param rows stored objects; two tabs may have given them the same number
   * @param item (number) => a new object
   */
  constructor(rows = [], item = (number) => new Item(number)) {
    super();
    this._newItem = item;
    this._number = 0;
    this.items = rows.map((row) => {
      this._number = Math.max(this._number + 1, row.number);
      return restored(row, this._number);
    });
    this.selected = this.items[this.items.length - 1] ?? this._make();
  }

  /** Objects that show on the image. */
  get drawn() {
    return this.items.filter((item) => !item.isEmpty);
  }

  get masked() {
    return this.items.filter((item) => item.mask);
  }

  _make() {
    const item = this._newItem(++this._number);
    this.items.push(item);
    return item;
  }

  /** Selects an empty object, which is made unless there is one. */
  begin() {
    if (!this.selected.isEmpty) this.select(this.items.find((item) => item.isEmpty) ?? this._make());
  }

  add() {
    const item = this._make();
    this.changed();
    return item;
  }

  select(item) {
    this.selected = item;
    this.changed();
  }

  /** Selects the next object or the previous one, cyclically. */
  step(by) {
    const { drawn } = this;
    if (!drawn.length) return;
    const at = drawn.indexOf(this.selected);
    this.select(drawn[(Math.max(at, by < 0 ? 0 : -1) + by + drawn.length) % drawn.length]);
  }

  remove(item) {
    const at = this.items.indexOf(item);
    this.items = this.items.filter((other) => other !== item);
    if (this.selected === item) this.selected = this.items[at] ?? this.items[at - 1] ?? this._make();
    this.changed();
    return at;
  }

  insert(item, at) {
    this.items.splice(at, 0, item);
    this.select(item);
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}
