// The form and the progress bar of automatic masks ("Everything").

const $ = (id) => document.getElementById(id);
const LOWEST_SCORE = 0.8;
const [STABILITY, ROUGH_STABILITY] = [0.95, 0.5];

export class AutomaticMasksForm {
  /**
   * @param automaticMasks the AutomaticMasks that it shows and controls
   * @param on {start(settings, minScore), keep(masks), empty()}
   */
  constructor(automaticMasks, on) {
    this.automaticMasks = automaticMasks;
    this.on = on;
    automaticMasks.addEventListener("change", () => this._show());
    $("everything-form").onsubmit = (event) => {
      event.preventDefault();
      this.toggle(false);
      const settings = { pointsPerSide: Number($("density").value), stability: Number($("stability").value) };
      this.on.start(settings, LOWEST_SCORE);
    };
    $("everything-stop").onclick = () => this._stop();
    $("min-score").oninput = (event) => automaticMasks.setMinScore(Number(event.target.value));
    $("keep-all").onclick = () => this.on.keep(automaticMasks.found);
  }

  /** Chooses the default stability score: a lower one for a demonstration model, whose masks are less stable than SAM 2's. */
  setRough(isRough) {
    $("stability").value = isRough ? ROUGH_STABILITY : STABILITY;
  }

  toggle(open = $("everything-form").hidden) {
    $("everything-form").hidden = !open;
    $("everything").setAttribute("aria-expanded", open);
    if (open) $("density").focus();
  }

  /** Closes the form or stops the search; returns whether there was something to cancel. */
  cancel() {
    const open = !$("everything-form").hidden;
    if (open) {
      this.toggle(false);
      $("everything").focus();
    } else if (this.automaticMasks.progress) this._stop();
    else return false;
    return true;
  }

  _stop() {
    if (this.automaticMasks.progress.state === "running") this.automaticMasks.stop();
    else this.automaticMasks.clear();
  }

  _show() {
    const { progress, found, minScore } = this.automaticMasks;
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
