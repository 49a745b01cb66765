// The list of images as thumbnails.

const $ = (id) => document.getElementById(id);

export class Filmstrip {
  /** @param on {open(image), step(by)} */
  constructor(on) {
    this.on = on;
    this._cells = new Map(); // digest -> cell
    $("image-before").onclick = () => on.step(-1);
    $("image-after").onclick = () => on.step(1);
  }

  show(images, current) {
    $("filmstrip").hidden = !images.length;
    $("image-before").disabled = $("image-after").disabled = images.length < 2;
    for (const [digest, cell] of this._cells) {
      if (images.some((image) => image.digest === digest)) continue;
      cell.remove();
      this._cells.delete(digest);
    }
    images.forEach((image, index) => {
      const cell = this._cells.get(image.digest) ?? this._make(image);
      const list = $("images");
      if (list.children[index] !== cell) list.insertBefore(cell, list.children[index] ?? null);
      this._update(cell, image, image === current);
    });
  }

  _make(image) {
    const cell = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(Object.assign(document.createElement("img"), { src: image.thumbnail, alt: "" }));
    button.append(Object.assign(document.createElement("span"), { className: "count" }));
    button.onclick = () => this.on.open(image.digest);
    cell.append(button);
    this._cells.set(image.digest, cell);
    return cell;
  }

  _update(cell, { name, count, hasFile }, isCurrent) {
    const button = cell.firstChild;
    const objects = count === 1 ? "1 object" : `${count || "no"} objects`;
    button.title = `${name}, ${objects}${hasFile ? "" : ". Its file is not kept: open it again"}`;
    button.ariaLabel = button.title;
    button.lastChild.textContent = count || "";
    const was = button.getAttribute("aria-current");
    button.setAttribute("aria-current", isCurrent);
    if (isCurrent && was !== "true") cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}
