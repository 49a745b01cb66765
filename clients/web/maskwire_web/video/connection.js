// A track over the WebSocket /v1/track, which is opened again, and the track with it, whenever the socket closes.

import { ApiError } from "../api.js";
import { Connection } from "../connection.js";

const SILENCE_MS = 180_000; // a frame with many objects takes long on a CPU

/**
 * Sends prompts and follows; see Connection. Requests are those of TrackRequest; one with `follow` has `found(FrameMasks)`
 * as well, which is called for each frame. Answers are FrameMasks or TrackInfo.
 */
export class TrackConnection extends Connection {
  socket = "track";
  silenceMs = SILENCE_MS;

  /**
   * @param open async () => OpenTrack: a new track, or the one to go on with
   * @param opened (TrackInfo) => prompts that the track has lost, to be given again
   * @param recover async (error) => {}, as in Connection
   */
  constructor(api, { open, opened, recover }) {
    super(api, { image: open, recover });
    this.info = null; // what the tracker said last
    this._opened = opened;
  }

  /** Ends the follow that is under way, whose promise then resolves. */
  stop() {
    for (const { request } of this._pending.values()) if (request.follow) request.stopped = true;
    if (this._ready) this._write({ stop: {} });
  }

  _first(open) {
    return { request_id: "open", open };
  }

  _read(response) {
    this._heard = Date.now();
    const error = response.error && ApiError.ofStatus(response.error);
    if (response.reconnect) return this._lost(0);
    if (response.request_id === "open") return error ? this._refused(error) : this._isOpen(response.opened);
    if (error && !response.request_id) return this._refused(error); // the stream has ended
    if (response.masks) this._write({ masks_seen: String(++this._masksSeen) });
    this.info = response.changed ?? response.followed ?? this.info;
    const pending = this._pending.get(response.request_id);
    if (!pending) return;
    const { request } = pending;
    if (request.follow && response.masks) return this._found(request, response.masks);
    this._pending.delete(response.request_id);
    if (error) pending.reject(error);
    else pending.resolve(response.masks ?? this.info);
  }

  _isOpen(info) {
    this.info = info;
    for (const prompt of this._opened(info)) this._write({ request_id: "again", prompt });
    this._begin();
  }

  _found(request, masks) {
    const step = request.follow.reverse ? -1 : 1;
    if (request.last !== undefined && (masks.frame - request.last) * step <= 0) return; // read before the socket was lost
    request.from ??= masks.frame;
    request.last = masks.frame;
    request.found(masks);
  }

  /** Sends a request. A follow that was under way on another socket goes on where that one ended. */
  _write(request) {
    if (request.follow) {
      const follow = this._rest(request);
      if (follow) return super._write({ request_id: request.request_id, follow });
      const { resolve } = this._pending.get(request.request_id);
      this._pending.delete(request.request_id);
      return resolve(this.info);
    }
    super._write(request);
  }

  /** What is left of a follow; null if nothing is. What the store has decides, which may be behind what was read. */
  _rest(request) {
    const { follow, from, last, stopped } = request;
    const stored = this.info.followed_to;
    if (stopped) return null;
    if (last === undefined) {
      request.before = stored;
      return follow;
    }
    const step = follow.reverse ? -1 : 1;
    const end = follow.most !== undefined ? from + step * follow.most : follow.reverse ? 0 : this.info.frames - 1;
    if ((last - end) * step >= 0) return null;
    const isNew = stored !== undefined && stored !== request.before && (stored - from) * step >= 0;
    const start = isNew ? (follow.reverse ? Math.max(stored, last) : Math.min(stored, last)) + step : from;
    return { ...follow, start, most: Math.abs(end - start) };
  }
}
