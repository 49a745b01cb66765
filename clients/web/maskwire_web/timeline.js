// Undo and redo over all objects.

/** Entries are {undo, redo}: functions, which may be asynchronous. Fires "change". */
export class Timeline extends EventTarget {
  constructor() {
    super();
    this.clear();
  }

  clear() {
    this._done = [];
    this._undone = [];
    this._last = Promise.resolve();
    this._changed();
  }

  get canUndo() {
    return this._done.length > 0;
  }

  get canRedo() {
    return this._undone.length > 0;
  }

  push(entry) {
    this._done.push(entry);
    this._undone = [];
    this._changed();
  }

  /** Removes an entry whose action failed, also if it was undone meanwhile. */
  drop(entry) {
    this._done = this._done.filter((other) => other !== entry);
    this._undone = this._undone.filter((other) => other !== entry);
    this._changed();
  }

  undo() {
    return this._move(this._done, this._undone, "undo");
  }

  redo() {
    return this._move(this._undone, this._done, "redo");
  }

  /** Runs one action at a time, however fast the key is pressed. */
  _move(from, to, action) {
    const entry = from.pop();
    if (!entry) return this._last;
    to.push(entry);
    this._changed();
    this._last = this._last.then(() => entry[action]());
    return this._last;
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}
