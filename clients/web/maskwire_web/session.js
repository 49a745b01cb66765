// Segments objects on one image, over a connection that may be lost meanwhile.

import { Connection } from "./connection.js";

const MAX_HOVERS_IN_FLIGHT = 2;

export class Session {
  /** @param store async () => ImageInfo; stores the image at the server, first of all and whenever the server lost it */
  constructor(api, store) {
    this.image = null; // its ImageInfo, once it is stored
    this._hovers = 0;
    this._newest = null; // the hover that was not sent yet
    this.connection = new Connection(api, {
      image: async () => {
        const { image_id, content_key, namespace } = (this.image ??= await store());
        return { image_id, content_key, namespace };
      },
      recover: async (error) => {
        if (error.status !== 404) throw error;
        this.image = null;
      },
    });
  }

  /** Resolves to the SegmentResponse for an object's steps, or to undefined if a speculative request was superseded. */
  async segment(objectId, steps, speculative = false) {
    const prompts = [{ prompt_id: objectId, steps }];
    return (await this.connection.send({ segment: { prompts }, speculative }))?.result;
  }

  /** The same for a preview: resolves to undefined if a later request made it obsolete. */
  hover(objectId, steps) {
    this.dropHover();
    return new Promise((resolve, reject) => {
      this._newest = { objectId, steps, resolve, reject };
      this._sendHover();
    });
  }

  /** Forgets the hover that was not sent yet. */
  dropHover() {
    this._newest?.resolve();
    this._newest = null;
  }

  close() {
    this.dropHover();
    this.connection.close();
  }

  async _sendHover() {
    if (!this._newest || this._hovers >= MAX_HOVERS_IN_FLIGHT) return;
    const { objectId, steps, resolve, reject } = this._newest;
    this._newest = null;
    this._hovers++;
    await this.segment(objectId, steps, true).then(resolve, reject);
    this._hovers--;
    this._sendHover();
  }
}
