// Undo and redo over all objects.

/** Entries are {undo, redo}: functions, which may be asynchronous, and resolve to false if they failed. Fires "change". */
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
    return this._move("_done", "_undone", "undo");
  }

  redo() {
    return this._move("_undone", "_done", "redo");
  }

  /** Runs one action at a time, however fast the key is pressed. */
  _move(from, to, action) {
    const entry = this[from].pop();
    if (!entry) return this._last;
    const at = this[from].length;
    this[to].push(entry);
    this._changed();
    this._last = this._last
      .then(() => entry[action]())
      .then((result) => {
        if (result !== false || !this[to].includes(entry)) return; // it was dropped, or a new action came meanwhile
        this[to] = this[to].filter((other) => other !== entry);
        this[from].splice(at, 0, entry);
        this._changed();
      });
    return this._last;
  }

  _changed() {
    this.dispatchEvent(new Event("change"));
  }
}
