// One image and the changes of its objects, on a connection that may be lost meanwhile.

import { Connection } from "./connection.js";

const MAX_HOVERS_IN_FLIGHT = 2;

/** What led to an object: the changes in order, and how many of them, from the last, were taken back. */
class History {
  steps = [];
  undone = 0;

  record(edit) {
    if (edit.undo) this.undone++;
    else if (edit.redo) this.undone--;
    else {
      this.steps.splice(this.steps.length - this.undone, this.undone, edit);
      this.undone = 0;
    }
  }
}

export class Session {
  /**
   * @param store async () => ImageInfo; stores the image at the server: at first, and whenever the server has lost it
   * @param histories Map from object ids to {steps, undone}, of objects that were made before
   */
  constructor(api, store, histories = new Map()) {
    this.image = null; // its ImageInfo, once it is stored
    this.histories = new Map([...histories].map(([id, made]) => [id, Object.assign(new History(), made)]));
    this._hovers = 0;
    this._newest = null; // the hover that waits for its turn here
    this.connection = new Connection(api, {
      prepare: async () => {
        this.image ??= await store();
      },
      opening: () => this._opening(),
      recover: async (error) => {
        if (error.status !== 404) throw error;
        this.image = null;
      },
    });
  }

  /** Makes a change: {add_point | remove_point | set_box | clear | undo | redo: ...}. Resolves to the ObjectResult. */
  async edit(objectId, change) {
    const edit = { object_id: objectId, ...change };
    const { object } = await this.connection.send({ edit });
    const history = this.histories.get(objectId) ?? new History();
    this.histories.set(objectId, history);
    history.record(edit);
    return object;
  }

  /** Forgets an object. Its history is what `restore` needs to bring it back. */
  async remove(objectId) {
    await this.connection.send({ edit: { object_id: objectId, remove: {} } });
    const history = this.histories.get(objectId);
    this.histories.delete(objectId);
    return history;
  }

  async restore(objectId, history) {
    await this.connection.send(this._restoring(objectId, history));
    this.histories.set(objectId, history);
  }

  /** What a change would give. Resolves to its mask's ObjectResult, or null if a later request came before. */
  hover(objectId, change) {
    this.dropHover();
    return new Promise((resolve, reject) => {
      this._newest = { objectId, change, resolve, reject };
      this._sendHover();
    });
  }

  /** Forgets the hover that has not been sent yet. */
  dropHover() {
    this._newest?.resolve(null);
    this._newest = null;
  }

  close() {
    this.dropHover();
    this.connection.close();
  }

  async _sendHover() {
    if (!this._newest || this._hovers >= MAX_HOVERS_IN_FLIGHT) return;
    const { objectId, change, resolve, reject } = this._newest;
    this._newest = null;
    this._hovers++;
    try {
      const answer = await this.connection.send({ edit: { object_id: objectId, ...change }, speculative: true });
      resolve(answer && answer.object);
    } catch (error) {
      reject(error);
    } finally {
      this._hovers--;
      this._sendHover();
    }
  }

  _opening() {
    const { image_id, content_key, namespace } = this.image;
    return [
      { set_image: { image_id, content_key, namespace } },
      ...[...this.histories].map(([id, history]) => this._restoring(id, history)),
    ];
  }

  _restoring(objectId, { steps, undone }) {
    return { restore: { object_id: objectId, steps, undone } };
  }
}
