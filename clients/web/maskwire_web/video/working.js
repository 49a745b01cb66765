// What is in progress, over the frame: reading, sending, following.

const $ = (id) => document.getElementById(id);

export class Working {
  constructor(editor) {
    this.editor = editor;
    this._state = ""; // of the connection
    this._task = null; // {text, done, stop}
  }

  /**
   * Shows that something is in progress, until `end`.
   *
   * @param done the fraction that is done
   * @param stop ends it; null where it cannot be stopped
   */
  show(text, done, stop = null) {
    this._task = { text, done, stop };
    this.draw();
  }

  end() {
    this._task = null;
    this.draw();
  }

  connection(state) {
    this._state = state;
    this.draw();
  }

  draw() {
    const shown = this._task ?? this._ofEditor();
    $("working").hidden = !shown;
    if (!shown) return;
    const { text, done, stop } = shown;
    $("working-text").textContent = text;
    $("working-stop").hidden = !stop;
    $("working-stop").onclick = stop;
    if (done === null) $("working-bar").removeAttribute("value");
    else $("working-bar").value = done;
  }

  _ofEditor() {
    const { following, objects } = this.editor;
    if (["waiting", "failed"].includes(this._state)) return { text: "Reconnecting. Nothing is lost", done: null, stop: null };
    if (following) {
      const { reverse, done, total } = following;
      const text = `Following${reverse ? " backwards" : ""}: ${done} of ${total}`;
      return { text, done: done / total, stop: () => this.editor.stop() };
    }
    const isWaiting = objects.items.some((item) => item.pending.length);
    return isWaiting ? { text: "Finding the object", done: null, stop: null } : null;
  }
}
