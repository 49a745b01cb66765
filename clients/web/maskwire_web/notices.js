// Messages to the user: a live region for screen readers, and a short list of notices on the screen.

const SHOWN_MS = 4000;
const MOST = 3;

export class Notices {
  /** @param spoken an aria-live element @param list where notices appear, announced at once */
  constructor(spoken, list) {
    this.spoken = spoken;
    this.list = list;
  }

  /** Announces to screen readers what is visible elsewhere. */
  say(text) {
    this.spoken.textContent = text;
  }

  /** Shows a message for a few seconds. */
  show(text) {
    this._add(text, "notice").timer = setTimeout(() => this._remove(text), SHOWN_MS);
  }

  /**
   * Shows an error until it is dismissed, or until `clear`.
   *
   * @param remedy {label, run()}: a button that fixes the problem
   */
  error(text, remedy = null) {
    const notice = this._add(text, "notice error");
    const button = (label, onclick) => {
      const made = Object.assign(document.createElement("button"), { type: "button", textContent: label, onclick });
      notice.append(made);
    };
    if (remedy) {
      button(remedy.label, () => {
        this._remove(text);
        remedy.run();
      });
    }
    button("Dismiss", () => this._remove(text));
  }

  /** Removes all errors, since they are obsolete. */
  clear() {
    this.list.querySelectorAll(".error").forEach((notice) => notice.remove());
  }

  /** Adds a notice; replaces one with the same text, and removes the oldest ones if there are too many. */
  _add(text, className) {
    this._remove(text);
    const notice = document.createElement("div");
    notice.className = className;
    notice.append(Object.assign(document.createElement("span"), { textContent: text }));
    this.list.append(notice);
    while (this.list.children.length > MOST) this.list.firstChild.remove();
    return notice;
  }

  _remove(text) {
    for (const notice of [...this.list.children]) {
      if (notice.firstChild.textContent !== text) continue;
      clearTimeout(notice.timer);
      notice.remove();
    }
  }
}
