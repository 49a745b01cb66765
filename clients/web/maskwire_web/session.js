// Segments objects on one image, over a connection that may be lost meanwhile.

import { ApiError } from "./api.js";
import { Connection } from "./connection.js";

const MOST_LOSSES = 3; // of the image in a row: without an answer, or ten minutes, in between
const IN_A_ROW_MS = 600_000;

export class Session {
  /** @param store async () => ImageInfo; stores the image at the server, first of all and whenever the server lost it */
  constructor(api, store) {
    this.image = null; // its ImageInfo, once it is stored
    this._losses = 0; // of the image, in a row
    this._lostAt = 0;
    this.connection = new Connection(api, {
      image: async () => {
        const { image_id, content_key, namespace } = (this.image ??= await store());
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

  /** Resolves to the SegmentResponse for an object's steps, or to undefined if a speculative request was superseded. */
  async segment(objectId, steps, speculative = false) {
    const prompts = [{ prompt_id: objectId, steps }];
    const answer = await this.connection.send({ segment: { prompts }, speculative });
    if (answer) this._losses = 0;
    return answer?.result;
  }

  close() {
    this.connection.close();
  }
}
