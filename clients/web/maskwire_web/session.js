// Segments objects on one image, over a connection that may be lost meanwhile.

import { ApiError } from "./api.js";
import { Connection } from "./connection.js";

const MOST_LOSSES = 3; // of the image in a row: without an answer, or ten minutes, in between
const IN_A_ROW_MS = 600_000;
const PATIENCE_MS = 1500; // after which a click is answered here, if it can be

export class Session {
  /**
   * @param store async () => ImageInfo; stores the image at the server, first of all and whenever the server lost it
   * @param local LocalDecoding
   */
  constructor(api, store, local) {
    this._local = local;
    this._isSilent = false; // the server, when it was asked last
    this.image = null; // its ImageInfo, once it is stored
    this._losses = 0; // of the image, in a row
    this._lostAt = 0;
    this.connection = new Connection(api, {
      image: async () => {
        if (!this.image) {
          this.image = await store();
          local.prepare(this.image);
        }
        const { image_id, content_key, namespace } = this.image;
        return { image_id, content_key, namespace };
      },
      recover: async (error) => {
        if (error.status !== 404) throw error;
        if (Date.now() - this._lostAt > IN_A_ROW_MS) this._losses = 0;
        this._lostAt = Date.now();
        if (++this._losses >= MOST_LOSSES) {
          this._losses = 0; // for whoever tries again
          throw new ApiError(`The server keeps losing the image. Is its store full? ${error.message}`, error);
        }
        this.image = null;
      },
    });
  }

  /**
   * Resolves to the SegmentResponse for an object's steps, or to undefined if a speculative request was superseded.
   * Speculative requests are answered here where that is possible, others by the server, or here if it is silent.
   */
  async segment(objectId, steps, speculative = false) {
    if (!this._local.isReady(this.image)) return this._ask(objectId, steps, speculative);
    if (speculative) return this._local.segment(objectId, steps, true).catch(() => this._ask(objectId, steps, true));
    const asked = this._ask(objectId, steps, false);
    const silence = new Promise((resolve) => setTimeout(resolve, this._isSilent ? 0 : PATIENCE_MS));
    const heard = asked.catch((error) => {
      if (!error.isTransient) throw error;
    });
    const answer = await Promise.race([heard, silence]);
    this._isSilent = !answer;
    if (answer) return answer;
    asked.then(() => (this._isSilent = false)).catch(() => {}); // what it says later changes nothing else
    return this._local.segment(objectId, steps, false).catch(() => asked);
  }

  async _ask(objectId, steps, speculative) {
    const prompts = [{ prompt_id: objectId, steps }];
    const answer = await this.connection.send({ segment: { prompts }, speculative });
    if (answer) this._losses = 0;
    return answer?.result;
  }

  close() {
    this.connection.close();
  }
}
