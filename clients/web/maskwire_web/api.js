// The gateway's HTTP interface.

const TOKEN = "maskwire.token";
const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 8000;

/** An error with a message for the user; `status` is the HTTP status, 0 if no server answered. */
export class ApiError extends Error {
  constructor(message, { status = 0, reason = "", field = "" } = {}) {
    super(message);
    Object.assign(this, { status, reason, field });
  }

  get isTransient() {
    return [0, 429, 502, 503, 504].includes(this.status);
  }

  /** From the error object in a response's body. */
  static read(status, text) {
    let body = {};
    try {
      body = JSON.parse(text);
    } catch {
      // not JSON: a proxy in front of the gateway answered
    }
    return new ApiError(body.message ?? `The server answered ${status}.`, { ...body, status });
  }

  /** From a google.rpc.Status on the stream. */
  static ofStatus(status) {
    const info = (status.details ?? []).find((detail) => detail.reason) ?? {};
    const final = (status.details ?? []).some((detail) => detail.retryDelay?.startsWith("-")); // not to be tried again
    const http = final ? 500 : ({ 5: 404, 8: 429, 14: 503, 4: 504, 16: 401, 7: 403 }[status.code] ?? 400);
    return new ApiError(status.message || "The server refused the request.", { status: http, reason: info.reason });
  }
}

const UNREACHABLE = "The server cannot be reached. Is it running?";

export class Api {
  /** @param askToken async (wasWrong) => token; called when the gateway requires one */
  constructor(askToken, base = new URL("v1/", document.baseURI)) {
    this.base = base;
    this.askToken = askToken;
  }

  get token() {
    return sessionStorage.getItem(TOKEN) ?? "";
  }

  /** Address of a WebSocket: "stream" or "track". */
  socketUrl(name) {
    const url = new URL(name, this.base);
    url.protocol = url.protocol.replace("http", "ws");
    return url;
  }

  /** Subprotocols of the WebSocket; they carry the token, since browsers cannot set headers on one. */
  get protocols() {
    return this.token ? ["maskwire.v1", `maskwire.bearer.${this.token}`] : ["maskwire.v1"];
  }

  models() {
    return this._json("models");
  }

  /**
   * Stores an image. Retries while the server is away or busy.
   *
   * @param header {image_id, model}: its name, and the model that embeds it; without, the server issues or chooses one
   * @param progress called with the fraction sent, 0 to 1, or with the error before a retry; returns false to give up
   */
  upload(blob, header, progress) {
    const given = Object.fromEntries(Object.entries(header).filter(([, value]) => value));
    return this._retrying(progress, () => this._send("images", given, blob, progress));
  }

  /**
   * Stores the frames of a clip; otherwise as `upload`.
   *
   * @param header the fields of ClipHeader
   * @param blobs the file of each frame
   */
  uploadClip(header, blobs, progress) {
    const form = new FormData();
    blobs.forEach((blob, index) => form.append("frame", blob, `${index}`));
    return this._retrying(progress, () => this._send("clips", header, form, progress));
  }

  /** Deletes a clip or a track: "clips/NAME" or "tracks/NAME". */
  async delete(path) {
    await this._authorised(() => this._fetch(path, { method: "DELETE", keepalive: true }));
  }

  async _retrying(progress, send) {
    for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(LONGEST_PAUSE_MS, pause * 2)) {
      try {
        return await this._authorised(send);
      } catch (error) {
        if (!error.isTransient || progress(error) === false) throw error;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    }
  }

  /** Fetches a path below /v1/, with the token; throws ApiError unless it is there. */
  fetch(path, options) {
    return this._authorised(() => this._fetch(path, options));
  }

  /** Answers prompts on an image. @param request SegmentRequest, without the image's name */
  segment(imageId, request) {
    return this._authorised(async () => (await this._post(`images/${encodeURIComponent(imageId)}/segment`, request)).json());
  }

  /** Segments everything in an image: yields each GenerateMasksResponse as it arrives. */
  async *masks(imageId, request, signal) {
    const response = await this._authorised(() => this._post(`images/${encodeURIComponent(imageId)}/masks`, request, signal));
    for await (const { event, data } of events(response.body)) {
      if (event === "error") throw ApiError.read(500, data);
      yield JSON.parse(data);
    }
  }

  /** Asks for a token and repeats the call when the gateway requires one. */
  async _authorised(call) {
    for (let asked = false; ; asked = true) {
      try {
        return await call();
      } catch (error) {
        if (error.status !== 401) throw error;
        const token = await this.askToken(asked || Boolean(this.token));
        if (!token) throw error;
        sessionStorage.setItem(TOKEN, token);
      }
    }
  }

  async _json(path) {
    return this._authorised(async () => (await this._fetch(path)).json());
  }

  _post(path, request, signal) {
    const headers = { "Content-Type": "application/json" };
    return this._fetch(path, { method: "POST", body: JSON.stringify(request), headers, signal });
  }

  async _fetch(path, options = {}) {
    const headers = { ...options.headers, ...this._headers() };
    let response;
    try {
      response = await fetch(new URL(path, this.base), { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(UNREACHABLE);
    }
    if (!response.ok) throw ApiError.read(response.status, await response.text());
    return response;
  }

  _headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  /** Uses XMLHttpRequest, since fetch does not report the progress of an upload. */
  _send(path, parameters, body, progress) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const url = new URL(path, this.base);
      url.search = new URLSearchParams(parameters);
      request.open("POST", url);
      if (body instanceof Blob) request.setRequestHeader("Content-Type", body.type || "application/octet-stream");
      for (const [name, value] of Object.entries(this._headers())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.loaded / Math.max(1, event.total));
      request.onerror = () => reject(new ApiError(UNREACHABLE));
      request.onload = () => {
        if (request.status === 200 || request.status === 201) resolve(JSON.parse(request.responseText));
        else reject(ApiError.read(request.status, request.responseText));
      };
      request.send(body);
    });
  }
}

/** Yields the server-sent events in a response's body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text = (text + value).replaceAll("\r\n", "\n");
      for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
        const event = { event: "message", data: "" };
        for (const line of text.slice(0, end).split("\n")) {
          const [, name, content] = /^(\w+): ?(.*)$/.exec(line) ?? [];
          if (name === "data") event.data += (event.data && "\n") + content;
          else if (name) event[name] = content;
        }
        if (event.data) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
