// The list of objects.

const icon = (name) => `<svg aria-hidden="true"><use href="#i-${name}"></use></svg>`;

function button(name, label, onclick) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "icon";
  element.innerHTML = icon(name);
  element.title = label;
  element.ariaLabel = label;
  element.onclick = onclick;
  return element;
}

function summary(item, isAway) {
  if (item.pending.length && isAway) return "Waits for the server";
  if (item.summary) return item.summary;
  if (item.generated) return `${item.mask.area.toLocaleString()} px · by Everything`;
  const { points, box } = item.prompt;
  const parts = [];
  if (points.length) parts.push(points.length === 1 ? "1 click" : `${points.length} clicks`);
  if (box) parts.push("box");
  if (item.mask) parts.push(`score ${item.score.toFixed(2)}`);
  return parts.join(" · ") || (document.body.classList.contains("touch") ? "Tap the image to begin" : "Click the image to begin");
}

export class Panel {
  /** @param on {select(item), delete(item), changed(), other(item)}; other: another candidate is wanted */
  constructor(list, on) {
    this.list = list;
    this.on = on;
    this._rows = new Map(); // item -> row
  }

  /**
   * Updates the list. Rows are reused, so that they keep the focus.
   *
   * @param isAway whether the server cannot be reached
   */
  show(objects, isAway) {
    const items = objects.items.filter((item) => !item.isEmpty || item === objects.selected);
    for (const [item, row] of this._rows) {
      if (items.includes(item)) continue;
      row.remove();
      this._rows.delete(item);
    }
    items.forEach((item, index) => {
      const row = this._rows.get(item) ?? this._make(item);
      if (this.list.children[index] !== row) this.list.insertBefore(row, this.list.children[index] ?? null);
      const before = row.className;
      row.style.setProperty("--colour", item.colour);
      row.classList.toggle("selected", item === objects.selected);
      row.classList.toggle("empty", item.isEmpty);
      row.classList.toggle("waiting", item.pending.length > 0 && isAway);
      row.classList.toggle("concealed", !item.visible);
      row.querySelector("[data-hide]").setAttribute("aria-pressed", !item.visible);
      row.querySelector("[data-other]").hidden = !item.mask || !item.history?.hasCandidates;
      const select = row.querySelector(".object");
      select.setAttribute("aria-pressed", item === objects.selected);
      select.querySelector(".name").textContent = item.title;
      select.querySelector(".summary").textContent = summary(item, isAway);
      if (item === objects.selected && row.className !== before) row.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  /** Edits an object's name in its row. */
  rename(item) {
    const row = this._rows.get(item);
    if (!row || row.querySelector("input")) return;
    const select = row.querySelector(".object");
    const field = Object.assign(document.createElement("input"), { value: item.name, maxLength: 80, ariaLabel: "Name" });
    const end = (keep) => {
      field.onblur = null;
      if (keep && field.value.trim()) item.name = field.value.trim();
      field.remove();
      select.hidden = false;
      this.on.changed();
    };
    field.onblur = () => end(true);
    field.onkeydown = (event) => {
      event.stopPropagation();
      if (event.key === "Enter" || event.key === "Escape") {
        end(event.key === "Enter");
        select.focus();
      }
    };
    select.hidden = true;
    row.prepend(field);
    field.focus();
    field.select();
  }

  _make(item) {
    const row = document.createElement("li");
    const select = document.createElement("button");
    select.type = "button";
    select.className = "object";
    select.innerHTML = `<span class="swatch"></span><span class="text"><span class="name"></span><span class="summary"></span></span>`;
    select.onclick = () => this.on.select(item);
    select.ondblclick = () => this.rename(item);
    const hide = button("eye", "Hide", () => {
      item.visible = !item.visible;
      this.on.changed();
    });
    hide.dataset.hide = "";
    const other = button("other", "Another mask for this click (M)", () => this.on.other(item));
    other.dataset.other = "";
    row.append(
      select,
      other,
      button("pen", "Rename", () => this.rename(item)),
      hide,
      button("bin", "Delete", () => this.on.delete(item)),
    );
    this._rows.set(item, row);
    return row;
  }
}
