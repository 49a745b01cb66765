// The labels above the list of objects: a button for each, and one to edit the list.

import { editLabels } from "./dialogs.js";
import * as labels from "./labels.js";

const $ = (id) => document.getElementById(id);

export class LabelBar {
  constructor(editor) {
    this._editor = editor;
    this._shown = null;
    labels.changes.addEventListener("change", () => editor.objects.changed());
  }

  /** Gives the selected object a label, and later ones; "" for none. */
  choose(name) {
    labels.choose(name);
    this._editor.label(this._editor.objects.selected, name);
  }

  /** Does so with the label of a key, 1 to 9. */
  press(number) {
    const label = labels.all()[number - 1];
    if (label) this.choose(label.name);
  }

  /** Shows the list, and which label the selected object has. */
  show(item) {
    const chosen = item.isEmpty ? labels.current() : item.label;
    const list = labels.all();
    if (this._shown !== list) this._make(list);
    for (const button of $("labels").querySelectorAll("[data-label]")) {
      button.setAttribute("aria-pressed", button.dataset.label === chosen);
    }
  }

  async edit() {
    const lines = await editLabels(labels.text());
    if (lines !== null) labels.write(lines);
  }

  _make(list) {
    this._shown = list;
    const buttons = list.map(({ name, colour }, index) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "label" });
      button.dataset.label = name;
      button.style.setProperty("--colour", colour);
      const key = index < 9 ? Object.assign(document.createElement("kbd"), { textContent: index + 1 }) : "";
      button.append(Object.assign(document.createElement("i"), { className: "swatch" }), name, key);
      button.onclick = () => this.choose(button.getAttribute("aria-pressed") === "true" ? "" : name);
      return button;
    });
    const edit = Object.assign(document.createElement("button"), { type: "button", className: "label", id: "edit-labels" });
    edit.textContent = list.length ? "Edit" : "Add labels";
    edit.title = "Classes of objects, with colours and keys (L)";
    edit.onclick = () => this.edit();
    $("labels").replaceChildren(...buttons, edit);
  }
}
