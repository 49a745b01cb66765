// The objects on an image, and which of them clicks are for.

import { newUid } from "./library.js";
import { Mask } from "./rle.js";

// Apart from one another, and from most photographs.
const COLOURS = ["#3d8bfd", "#ff6b4a", "#1fb978", "#f5b700", "#a66bff", "#12b5cb", "#ff5c9e", "#8bc34a", "#ff9142", "#6c7bff"];

export class Item {
  /** @param number from 1; gives the colour and the first name */
  constructor(number) {
    this.id = `object-${number}`; // also its name in the session
    this.name = `Object ${number}`;
    this.colour = COLOURS[(number - 1) % COLOURS.length];
    this.prompt = { points: [], box: null };
    this.pending = []; // clicks and boxes that were not answered yet
    this.mask = null;
    this.score = 0;
    this.generated = null; // of everything mode: {index, minScore, grid}; its mask stays as it is
    this.visible = true;
    this.made = Date.now();
    this.uid = newUid(); // its name in the browser's storage
    this.revision = 0; // of what is stored
  }

  get isEmpty() {
    return !this.mask && !this.prompt.points.length && !this.prompt.box && !this.pending.length;
  }

  /** Takes over what the session answered. */
  update(result) {
    this.prompt = { points: result.prompt?.points ?? [], box: result.prompt?.box ?? null };
    const best = result.result?.results?.[0]?.masks?.[0];
    this.mask = best ? new Mask(best.rle) : null;
    this.score = best?.score ?? 0;
  }
}

const plain = (mask) => mask && { size: [mask.height, mask.width], counts: mask.counts };

/** An object as it is stored; `restored` is the way back. */
export function stored(item, history) {
  const { uid, revision, made, name, visible, prompt, score, generated } = item;
  const { steps, undone } = history ?? { steps: [], undone: 0 };
  const number = Number(item.id.split("-")[1]);
  return { uid, revision, made, number, name, visible, prompt, score, generated, mask: plain(item.mask), steps, undone };
}

function restored(row, number) {
  const { uid, revision, made, visible, prompt, score, generated } = row;
  const item = Object.assign(new Item(number), { uid, revision, made, visible, prompt, score, generated });
  if (row.name !== `Object ${row.number}`) item.name = row.name;
  item.mask = row.mask && new Mask(row.mask);
  return item;
}

/** Fires "change" whenever something is to be drawn anew. */
export class Objects extends EventTarget {
  /** @param rows objects that were stored; two tabs may have given them the same number */
  constructor(rows = []) {
    super();
    this._number = 0;
    this.items = rows.map((row) => {
      this._number = Math.max(this._number + 1, row.number);
      return restored(row, this._number);
    });
    this.selected = this.items[this.items.length - 1] ?? this._make();
  }

  /** Those with something on the image. */
  get drawn() {
    return this.items.filter((item) => !item.isEmpty);
  }

  get masked() {
    return this.items.filter((item) => item.mask);
  }

  _make() {
    const item = new Item(++this._number);
    this.items.push(item);
    return item;
  }

  /** Begins an object, unless the selected one is empty still. */
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

  /** The next object or the one before, round and round. */
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
