// The choice of what a click or drag does: a group of buttons of which one is chosen, by clicks or arrow keys.

export class Tools {
  /**
   * @param buttons each with its name in data-tool
   * @param chosen called with the name of the one that is chosen
   */
  constructor(buttons, chosen) {
    Object.assign(this, { buttons, chosen });
    for (const button of buttons) {
      button.onclick = () => this.choose(button.dataset.tool);
      button.onkeydown = (event) => this._move(event);
    }
  }

  choose(name) {
    this.chosen(name);
    for (const button of this.buttons) {
      button.setAttribute("aria-checked", button.dataset.tool === name);
      button.tabIndex = button.dataset.tool === name ? 0 : -1;
    }
  }

  _move({ key, target }) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!by) return;
    const { buttons } = this;
    const next = buttons[(buttons.indexOf(target) + by + buttons.length) % buttons.length];
    this.choose(next.dataset.tool);
    next.focus();
  }
}
