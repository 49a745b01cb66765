// A WebSocket to /v1/stream that is opened again whenever it closes.

import { ApiError } from "./api.js";

const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 8000;
const CLOSED = "The image was closed.";

/**
 * Sends requests in order and resolves to their answers, over one socket after another.
 *
 * Fires "state" with detail {state: "open" | "opening" | "waiting", retryMs}.
 */
export class Connection extends EventTarget {
  socket = "stream"; // which WebSocket it is
  silenceMs = 20_000; // with requests open and nothing received for so long, the socket is dead

  /**
   * @param api knows the socket's address
   * @param image async () => SetImage, the image that a new socket begins with; rejects if the connection must be given up
   * @param recover async (error) => {}, corrects what made the server refuse the image; rejects likewise
   */
  constructor(api, { image, recover }) {
    super();
    Object.assign(this, { api, image, recover });
    this._pending = new Map(); // request_id -> {request, resolve, reject}
    this._number = 0;
    this._failure = null; // the error after which it was given up
    this._pause = FIRST_PAUSE_MS;
    this._wake = () => this._timer && document.visibilityState === "visible" && this.retryNow();
    addEventListener("online", this._wake);
    document.addEventListener("visibilitychange", this._wake);
    this._watch = setInterval(() => this._checkSilence(), 1000);
    queueMicrotask(() => this._open()); // when subclasses have been made as well
  }

  /** Resolves to the answer, or to null if the request was superseded; rejects with ApiError. */
  send(request) {
    if (this._closed || this._failure) return Promise.reject(this._failure ?? new ApiError(CLOSED));
    request.request_id = String(++this._number);
    return new Promise((resolve, reject) => {
      this._pending.set(request.request_id, { request, resolve, reject });
      if (this._ready) this._write(request);
    });
  }

  close() {
    this._closed = true;
    removeEventListener("online", this._wake);
    document.removeEventListener("visibilitychange", this._wake);
    clearInterval(this._watch);
    clearTimeout(this._timer);
    this._socket?.close();
    this._failAll(new ApiError(CLOSED));
  }

  /** Tries again at once, instead of waiting or after giving up. */
  retryNow() {
    if (!this._timer && !this._failure) return;
    clearTimeout(this._timer);
    this._failure = null;
    this._open();
  }

  async _open() {
    this._timer = null;
    this._ready = false;
    this._masksSeen = 0;
    this._heard = Date.now();
    this._tell("opening");
    let image;
    try {
      image = await this.image();
    } catch (error) {
      return this._giveUp(error);
    }
    if (this._closed) return;
    const socket = this._connect();
    if (!socket) return;
    this._socket = socket;
    const current = (handle) => (event) => socket === this._socket && !this._closed && handle(event);
    let opened = false;
    socket.onopen = current(() => {
      opened = true;
      this._write(this._first(image));
    });
    socket.onmessage = current((event) => this._read(JSON.parse(event.data)));
    socket.onclose = current(() => (opened ? this._lost() : this._neverOpened()));
  }

  /** The request that a socket begins with. */
  _first(image) {
    return { set_image: image };
  }

  _connect() {
    try {
      return new WebSocket(this.api.socketUrl(this.socket), this.api.protocols);
    } catch {
      this._giveUp(new ApiError("The token has characters that a browser cannot send. Reload the page to enter another."));
      return null;
    }
  }

  _read(response) {
    this._heard = Date.now();
    if (response.reconnect) return this._lost(0);
    if (response.result) {
      this._masksSeen++;
      if (this._ready) this._socket.send(JSON.stringify({ masks_seen: String(this._masksSeen) }));
    }
    const pending = this._pending.get(response.request_id);
    if (!pending) return this._readOpening(response);
    const error = response.error && ApiError.ofStatus(response.error);
    if (error?.status === 404) return this._refused(error); // the store lost the image; this request is sent again
    this._pending.delete(response.request_id);
    if (error) pending.reject(error);
    else pending.resolve(response.superseded ? null : response);
  }

  _readOpening(response) {
    if (response.error) this._refused(ApiError.ofStatus(response.error));
    if (response.image_ready && !this._ready) this._begin();
  }

  /** Sends what waits for an answer, now that the socket is ready. */
  _begin() {
    this._ready = true;
    this._pause = FIRST_PAUSE_MS;
    for (const [id, { request, resolve }] of [...this._pending]) {
      if (request.speculative) {
        this._pending.delete(id);
        resolve(null);
      } else this._write(request);
    }
    this._tell("open");
  }

  async _refused(error) {
    this._drop();
    if (error.isTransient) return this._lost();
    try {
      await this.recover(error);
      this._lost();
    } catch (final) {
      if (final.isTransient) this._lost();
      else this._giveUp(final);
    }
  }

  /** Browsers do not say why a socket was refused. If a token is missing, an ordinary request asks for it. */
  async _neverOpened() {
    try {
      await this.api.models();
    } catch (error) {
      if (!error.isTransient) return this._giveUp(error);
    }
    this._lost();
  }

  _giveUp(error) {
    if (this._closed) return;
    clearTimeout(this._timer); // if silence was noticed while the reason was asked for
    this._timer = null;
    this._drop();
    this._failure = error;
    this._failAll(error);
    this.dispatchEvent(new CustomEvent("failed", { detail: error }));
  }

  /** Tries again with exponential backoff and jitter. */
  _lost(pause = this._pause * (0.75 + Math.random() / 2)) {
    if (this._closed || this._timer) return;
    this._drop();
    this._pause = Math.min(LONGEST_PAUSE_MS, this._pause * 2);
    this._timer = setTimeout(() => this._open(), pause);
    this._tell("waiting", pause);
  }

  _drop() {
    this._ready = false;
    const socket = this._socket;
    this._socket = null;
    socket?.close();
  }

  /** A socket still looks open when the network has silently gone. */
  _checkSilence() {
    if (!this._socket || (this._ready && !this._pending.size)) this._heard = Date.now();
    else if (Date.now() - this._heard > this.silenceMs) this._lost();
  }

  _write(request) {
    this._socket.send(JSON.stringify({ ...request, masks_seen: String(this._masksSeen) }));
  }

  _failAll(error) {
    for (const { reject } of this._pending.values()) reject(error);
    this._pending.clear();
  }

  _tell(state, retryMs = 0) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, retryMs } }));
  }
}
