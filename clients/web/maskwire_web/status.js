// The status line: position, zoom, timings, connection.

const $ = (id) => document.getElementById(id);
const ms = (value) => `${Math.round(value)} ms`;

const STATES = {
  open: "Connected",
  opening: "Connecting",
  waiting: "Reconnecting",
  failed: "Disconnected. Try again",
};

export class Status {
  constructor() {
    this._image = "";
    this._mask = "";
  }

  place(point) {
    $("place").textContent = point ? `x ${point[0]}  y ${point[1]}` : "";
  }

  zoom(scale) {
    $("zoom").textContent = `${scale < 0.1 ? (scale * 100).toFixed(1) : Math.round(scale * 100)} %`;
  }

  /** @param timings Picture.timings */
  image({ upload, encode }) {
    const encoded = encode === null ? "stored already" : ms(encode);
    this._image = `<span class="of-image">upload <b>${ms(upload)}</b> · encode <b>${encoded}</b> </span>`;
    this._mask = "";
    this._show();
  }

  /**
   * @param timings SegmentTimings
   * @param here how this browser decoded it; "" if the server did
   * @param isSharp whether it was decoded from near by, after the whole picture's
   * @param local LocalDecoding, which says what does not work of what people chose
   */
  mask({ timings, tookMs, here, isSharp }, { failure, troubles }) {
    const decode = (timings?.decode_ms ?? 0) + (timings?.mask_ms ?? 0);
    const took = here || `${isSharp ? "sharpened" : "round trip"} <b>${ms(tookMs)}</b>${failure ? ", this browser cannot decode" : ""}`;
    this._mask = `<span class="of-mask">decode <b>${ms(decode)}</b> · ${took}</span>`;
    $("timings").title = troubles;
    this._show();
  }

  connection(state) {
    const element = $("connection");
    element.hidden = !state;
    element.dataset.state = state;
    element.lastElementChild.textContent = STATES[state] ?? "";
  }

  _show() {
    $("timings").innerHTML = this._image + this._mask;
  }
}
