// The objects on an image, and which of them clicks are for.

import { COLOURS } from "./colours.js";
import { edited } from "./drawing.js";
import { History } from "./history.js";
import { colourOf } from "./labels.js";
import { newUid } from "./library.js";
import { Mask } from "./rle.js";

export class Item {
  /** @param number from 1; gives the colour and the first name */
  constructor(number) {
    this.id = `object-${number}`; // also its prompt_id
    this.name = `Object ${number}`;
    this.label = ""; // its class; see labels.js
    this._colour = COLOURS[(number - 1) % COLOURS.length];
    this.history = new History();
    this.pending = []; // clicks and boxes that were not answered yet
    this.mask = null;
    this._base = { mask: null, of: "[]" }; // the mask without edits, and the steps that it was decoded from, as JSON
    this._first = null; // the run lengths of the whole picture's answer, where a sharper mask took its place
    this.score = 0;
    this.generated = null; // parameters of an automatic mask, which is not edited: see AutomaticMasks.items
    this.visible = true;
    this.made = Date.now();
    this.uid = newUid(); // key in the browser's storage
    this.revision = 0; // of the stored row
  }

  /** That of its label, or its own. */
  get colour() {
    return colourOf(this.label) ?? this._colour;
  }

  /** What lists call it: its label, and its name if that says more. */
  get title() {
    const isNamed = this.name !== `Object ${this.number}`;
    return this.label ? (isNamed ? `${this.label} · ${this.name}` : this.label) : this.name;
  }

  get number() {
    return Number(this.id.split("-")[1]);
  }

  get isEmpty() {
    return !this.mask && !this.prompt.points.length && !this.prompt.box && !this.pending.length;
  }

  get prompt() {
    return this.history.prompt;
  }

  /** Whether the mask of a history can be made of what is here: only edits have changed. */
  has(history) {
    return JSON.stringify(history.prompts) === this._base.of;
  }

  /** @param response the SegmentResponse for the history's prompts; none where these are empty, or the same as before */
  update(history, response = null) {
    if (!this.has(history)) this._decoded(history, response?.results[0].masks[0]);
    this.mask = history.edits.reduce(edited, this._base.mask);
    this.history = history; // only now: if the response cannot be read, nothing changes
  }

  /** Run lengths of the mask, or of the one that it was before it was sharpened. */
  get answered() {
    return this._first ?? this.mask?.counts;
  }

  /** Replaces the mask. @param response another answer to the prompts of the history, which has no edits */
  sharpen(response) {
    const { counts } = this.mask;
    this._decoded(this.history, response.results[0].masks[0]);
    this.mask = this._base.mask;
    this._first = counts;
  }

  _decoded(history, best) {
    this._base = { mask: best ? new Mask(best.rle) : null, of: JSON.stringify(history.prompts) };
    this.score = best?.score ?? 0;
    this._first = null;
  }

  /** @param found a generated mask, which edits can change, but not clicks */
  generate({ mask, score, generated }) {
    Object.assign(this, { mask, score, generated, _base: { mask, of: "[]" } });
    return this;
  }
}

const plain = (mask) => mask && { size: [mask.height, mask.width], counts: mask.counts };

/** An object as a row of the browser's storage; `restored` reads it. */
export function stored(item) {
  const { uid, revision, made, number, name, label, visible, score, generated, history } = item;
  const { made: steps, undone } = history;
  const base = history.edits.length ? plain(item._base.mask) : undefined; // without, the mask itself
  return { base, uid, revision, made, number, name, label, visible, score, generated, mask: plain(item.mask), steps, undone };
}

function restored(row, number) {
  const { uid, revision, made, label = "", visible, score, generated } = row;
  const history = new History(row.steps, row.undone);
  const item = Object.assign(new Item(number), { uid, revision, made, label, visible, score, generated, history });
  if (row.name !== `Object ${row.number}`) item.name = row.name;
  item.mask = row.mask && new Mask(row.mask);
  const base = row.base === undefined ? item.mask : row.base && new Mask(row.base);
  item._base = { mask: base, of: JSON.stringify(history.prompts) };
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
