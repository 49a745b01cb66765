// What the page tells people: a line for screen readers, and messages that stay until they are read.

const STAY_MS = 6000;

export class Notices {
  /** @param spoken an aria-live element @param list where messages appear, assertive for errors */
  constructor(spoken, list) {
    this.spoken = spoken;
    this.list = list;
  }

  /** Says something that can be seen elsewhere. */
  say(text) {
    this.spoken.textContent = text;
  }

  /** Shows a message for some seconds. */
  show(text) {
    const message = this._add(text, "notice");
    setTimeout(() => message.remove(), STAY_MS);
  }

  /** Shows an error until it is dismissed; once, however often it comes. */
  error(text) {
    if ([...this.list.children].some((other) => other.firstChild.textContent === text)) return;
    const message = this._add(text, "notice error");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Dismiss";
    button.onclick = () => message.remove();
    message.append(button);
    while (this.list.children.length > 3) this.list.firstChild.remove();
  }

  _add(text, className) {
    const message = document.createElement("div");
    message.className = className;
    message.append(Object.assign(document.createElement("span"), { textContent: text }));
    this.list.append(message);
    return message;
  }
}
