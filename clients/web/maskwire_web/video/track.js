// A track of a clip on the server: uploads the clip, opens the track, and opens it anew where the server has lost it.

import { ApiError } from "../api.js";
import { TrackConnection } from "./connection.js";

const MOST_LOSSES = 3; // of track or clip, without an answer in between

/**
 * Fires "state" as Connection does, "working" with detail {sent, waits}: the fraction of the clip that was sent, null
 * when all was, and why it is to be sent again; and "restored" when the server had lost the track.
 */
export class Track extends EventTarget {
  /**
   * @param prompts () => the TrackPrompts that were given so far, for a track that must be opened anew
   * @param how {model, handOver}
   */
  constructor(api, clip, prompts, { model, handOver }) {
    super();
    this._api = api;
    this._clip = clip;
    this._how = { model, hand_over: handOver };
    this._clipId = this._trackId = "";
    this._losses = 0;
    this._closed = false;
    this.connection = new TrackConnection(api, {
      open: () => this._open(),
      opened: (info) => {
        const isNew = info.track_id !== this._trackId;
        this._trackId = info.track_id;
        const lost = isNew ? prompts() : [];
        if (lost.length) this._tell("restored");
        return lost;
      },
      recover: async (error) => {
        if (error.status !== 404) throw error;
        if (++this._losses >= MOST_LOSSES) throw new ApiError(`The server keeps losing the clip. Is its store full? ${error.message}`, error);
        this._clipId = this._trackId = "";
      },
    });
    for (const name of ["state", "failed"]) {
      this.connection.addEventListener(name, ({ detail }) => this._tell(name, detail));
    }
  }

  /** Sends a TrackPrompt. Resolves to FrameMasks or TrackInfo. */
  async prompt(prompt) {
    const answer = await this.connection.send({ prompt });
    this._losses = 0;
    return answer;
  }

  /** Follows all objects. Resolves when it has ended. */
  async follow(follow, found) {
    await this.connection.send({ follow, found });
    this._losses = 0;
  }

  stop() {
    this.connection.stop();
  }

  /** Closes the track, and deletes it and its clip from the server. */
  close() {
    this._closed = true;
    this.connection.close();
    const paths = [this._trackId && `tracks/${this._trackId}`, this._clipId && `clips/${this._clipId}`];
    for (const path of paths.filter(Boolean)) this._api.delete(path).catch(() => {}); // they expire
  }

  async _open() {
    if (this._trackId) return { track_id: this._trackId };
    if (!this._clipId) {
      const blobs = this._clip.frames.map(({ blob }) => blob);
      const progress = (sent) => {
        if (sent instanceof ApiError) this._tell("working", { sent: 0, waits: sent.message });
        else this._tell("working", { sent });
        return !this._closed;
      };
      progress(0);
      this._clipId = (await this._api.uploadClip(this._clip.header, blobs, progress)).clip_id;
      this._tell("working", { sent: null });
    }
    return { clip_id: this._clipId, ...this._how };
  }

  _tell(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
