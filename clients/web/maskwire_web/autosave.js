// Saves the objects of the current image to the library whenever they change.

import { stored } from "./objects.js";

export class Autosave {
  constructor(editor, library) {
    Object.assign(this, { editor, library });
    this._image = null;
    this._seen = new Map(); // item -> its state when it was last saved
    this._last = Promise.resolve();
    this._writing = 0; // unfinished writes
    editor.addEventListener("change", () => this._look());
  }

  /** Whether something is still being written. */
  get isBusy() {
    return this._writing > 0;
  }

  /** Begins to save an image's objects, which the editor has opened. */
  begin(image) {
    this._image = image;
    this._seen = new Map(this.editor.objects.items.filter((item) => item.revision).map((item) => [item, this._state(item)]));
  }

  /** Stops, before the editor forgets the objects. Resolves when everything is stored. */
  end() {
    this._image = null;
    return this._last;
  }

  /** Resolves when what has changed so far is stored. */
  written() {
    return this._last.catch(() => {});
  }

  _state(item) {
    return [item.name, item.label, item.visible, item.mask, item.history];
  }

  _look() {
    const image = this._image;
    if (!image) return;
    const { objects } = this.editor;
    const items = objects.items.filter((item) => item.mask || !item.history.isEmpty);
    const gone = [...this._seen.keys()].filter((item) => !items.includes(item));
    const changed = items.filter((item) => {
      const before = this._seen.get(item);
      return !before || this._state(item).some((part, i) => part !== before[i]);
    });
    for (const item of gone) {
      this._seen.delete(item);
      this._write(() => this.library.forget(image, item));
    }
    for (const item of changed) {
      this._seen.set(item, this._state(item));
      const row = structuredClone(stored(item));
      this._write(async () => {
        // uid and revision are read now, since an earlier write may have changed them.
        Object.assign(item, await this.library.keep(image, { ...row, uid: item.uid, revision: item.revision }));
      });
    }
    if (gone.length || changed.length) this._write(() => this.library.note(image, { count: items.length }));
  }

  /** Queues a write behind the others. */
  _write(write) {
    this._writing++;
    this._last = this._last.catch(() => {}).then(write).finally(() => this._writing--);
  }
}
