// Everything mode's form and bar.

const $ = (id) => document.getElementById(id);
const LOWEST_SCORE = 0.8;
const ROUGH_STABILITY = 0.5;

export class Search {
  /**
   * @param everything what is shown and steered
   * @param on {start(settings, minScore), keep(masks), empty()}
   */
  constructor(everything, on) {
    this.everything = everything;
    this.on = on;
    everything.addEventListener("change", () => this._show());
    $("everything-form").onsubmit = (event) => {
      event.preventDefault();
      this.toggle(false);
      const settings = { pointsPerSide: Number($("density").value), stability: Number($("stability").value) };
      this.on.start(settings, LOWEST_SCORE);
    };
    $("everything-stop").onclick = () => this._stop();
    $("min-score").oninput = (event) => everything.setMinScore(Number(event.target.value));
    $("keep-all").onclick = () => this.on.keep(everything.found);
  }

  /** A demonstration model's masks are less stable than those the reference's default was chosen for. */
  isRough() {
    $("stability").value = ROUGH_STABILITY;
  }

  toggle(open = $("everything-form").hidden) {
    $("everything-form").hidden = !open;
    $("everything").setAttribute("aria-expanded", open);
    if (open) $("density").focus();
  }

  /** Ends what is open or under way; true if there was something. */
  cancel() {
    const open = !$("everything-form").hidden;
    if (open) {
      this.toggle(false);
      $("everything").focus();
    } else if (this.everything.progress) this._stop();
    else return false;
    return true;
  }

  _stop() {
    if (this.everything.progress.state === "running") this.everything.stop();
    else this.everything.clear();
  }

  _show() {
    const { progress, found, minScore } = this.everything;
    $("everything-bar").hidden = !progress;
    if (!progress) return;
    const running = progress.state === "running";
    const bar = $("everything-progress");
    bar.hidden = !running;
    bar.value = progress.total ? progress.done / progress.total : 0;
    const count = found.length === 1 ? "1 mask" : `${found.length} masks`;
    $("everything-count").textContent = count;
    $("everything-score").hidden = running;
    $("keep-all").hidden = running || !found.length;
    $("min-score").value = minScore;
    $("min-score-value").textContent = minScore.toFixed(2);
    $("everything-stop").textContent = running ? "Stop" : "Done";
  }
}
