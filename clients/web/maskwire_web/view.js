// The controls of how the image is shown, in the status line: zoom, and how opaque masks are.

const $ = (id) => document.getElementById(id);
const KEPT = "maskwire.opacity"; // in localStorage
const STEP = 1.25;

export class View {
  constructor(viewport, stage) {
    Object.assign(this, { viewport, stage });
    $("zoom-in").onclick = () => this.zoomIn();
    $("zoom-out").onclick = () => this.zoomOut();
    $("opacity").oninput = ({ target }) => {
      localStorage.setItem(KEPT, target.value);
      this._setOpacity(Number(target.value));
    };
    const kept = Number(localStorage.getItem(KEPT) ?? stage.opacity);
    this._setOpacity(kept);
    $("opacity").value = kept;
  }

  zoomIn() {
    this.viewport.zoom(STEP);
  }

  zoomOut() {
    this.viewport.zoom(1 / STEP);
  }

  _setOpacity(opacity) {
    this.stage.opacity = opacity;
    this.stage.draw("overlay");
  }
}
