// Keeps the objects of the image on the stage in the library, whatever changes them.

import { stored } from "./objects.js";

export class Keeper {
  constructor(editor, library) {
    Object.assign(this, { editor, library });
    this._image = null;
    this._seen = new Map(); // item -> what of it is stored
    this._last = Promise.resolve();
    this._writing = 0; // what is on its way
    editor.addEventListener("change", () => this._look());
  }

  /** Whether something is still on its way into the browser's storage. */
  get isBusy() {
    return this._writing > 0;
  }

  /** Begins with an image whose stored objects the editor has. */
  begin(image) {
    this._image = image;
    this._seen = new Map(this.editor.objects.items.filter((item) => item.revision).map((item) => [item, this._state(item)]));
  }

  /** Ends, before the editor forgets the objects. Resolves when all is stored. */
  end() {
    this._image = null;
    return this._last;
  }

  _state(item) {
    const history = this.editor.session?.histories.get(item.id);
    return [item.name, item.visible, item.mask, history?.steps.length, history?.undone];
  }

  _look() {
    const image = this._image;
    if (!image) return;
    const { objects, session } = this.editor;
    const items = objects.items.filter((item) => item.mask || item.prompt.points.length || item.prompt.box);
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
      const row = structuredClone(stored(item, session?.histories.get(item.id)));
      this._write(async () => {
        // The row may have been written once more since it was made.
        Object.assign(item, await this.library.keep(image, { ...row, uid: item.uid, revision: item.revision }));
      });
    }
    if (gone.length || changed.length) this._write(() => this.library.note(image, { count: items.length }));
  }

  /** In order, one after another. */
  _write(write) {
    this._writing++;
    this._last = this._last.catch(() => {}).then(write).finally(() => this._writing--);
  }
}
