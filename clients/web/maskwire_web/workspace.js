// The current image: opens it from the library, shows it, uploads it, and restores its objects.

import { ApiError } from "./api.js";
import { Autosave } from "./autosave.js";
import { Objects } from "./objects.js";
import { Picture, UnusablePicture } from "./picture.js";

const LAST = "maskwire.image"; // key of this tab's image in sessionStorage

/**
 * Fires "change" when the image changes; "working" with detail {text, sent}: what is in progress and, if known, the
 * fraction done; "state" with detail {state} of the connection; "stored" with detail {timings}; "trouble" with detail
 * {message, remedy}.
 */
export class Workspace extends EventTarget {
  constructor(api, library, editor) {
    super();
    Object.assign(this, { api, library, editor });
    this.autosave = new Autosave(editor, library);
    this.image = null; // of the library
    this.picture = null;
    this._model = ""; // that embeds images; "" for the server's default
  }

  /** Uses another model from now on, on the open image as well. */
  async use(model) {
    if (model === this._model) return;
    this._model = model;
    const { image } = this;
    if (!image) return;
    await this.close();
    await this.open(image);
  }

  /** Adds files to the library and opens the first of them. Files in folders that are not images are skipped. */
  async add(files, isFolder) {
    let first = null;
    const refused = [];
    for (const [number, file] of files.entries()) {
      if (files.length > 1) this._tell("working", { text: `Adding ${number + 1} of ${files.length}`, sent: number / files.length });
      try {
        const image = await this.library.add(file, file.name || "pasted image.png", () => describe(file));
        first ??= image;
        if (image === first) await this.open(image);
      } catch (error) {
        if (!(error instanceof UnusablePicture)) throw error;
        refused.push(error.message);
      }
    }
    if (files.length > 1) this._working();
    if (!isFolder || refused.length === files.length) refused.slice(0, 2).forEach((message) => this._trouble(message));
    const rest = isFolder && first ? refused.length : refused.length - 2;
    if (rest > 0) this._trouble(`${rest} ${isFolder ? "" : "more "}${rest === 1 ? "file was" : "files were"} left out: this browser cannot show ${rest === 1 ? "it" : "them"}.`);
  }

  /** Opens the image that this tab showed before a reload, or the most recently opened one. */
  async resume() {
    const latest = [...this.library.images].sort((a, b) => b.opened - a.opened)[0];
    const image = this.library.find(sessionStorage.getItem(LAST)) ?? latest;
    if (image) await this.open(image);
  }

  async open(image) {
    if (image === this.image && this.picture) return;
    await this.close();
    this.image = image;
    sessionStorage.setItem(LAST, image.digest);
    this._tell("change");
    const [file, rows] = await Promise.all([this.library.file(image), this.library.objects(image)]);
    const picture = file && (await Picture.read(file, image.name));
    if (image !== this.image) return picture?.bitmap.close(); // another image was opened meanwhile
    if (!picture) return this._askForFile(image, rows.length);
    this.picture = picture;
    this._connect(picture, rows);
    this.autosave.begin(image);
    this._tell("change");
    await this.library.note(image, { opened: Date.now() });
  }

  /** Opens the next or previous image of the list, cyclically. */
  step(by) {
    const { images } = this.library;
    const at = images.indexOf(this.image);
    return images.length > 1 ? this.open(images[(at + by + images.length) % images.length]) : undefined;
  }

  /** Closes the image. Its objects stay in the library. */
  async close() {
    const { picture } = this;
    const kept = this.autosave.end();
    this.picture = this.image = null;
    this.editor.close();
    picture?.bitmap.close();
    this._working();
    this._tell("state", { state: "" });
    this._tell("change");
    await kept;
  }

  /** Removes images from the library; if the current one is among them, opens its neighbour. */
  async remove(images) {
    const at = this.library.images.indexOf(this.image);
    const isShown = images.includes(this.image);
    if (isShown) await this.close();
    await this.library.remove(images);
    const rest = this.library.images;
    if (isShown && rest.length) await this.open(rest[Math.min(at, rest.length - 1)]);
  }

  /** All images that have masks, as annotations.js takes them. */
  async annotated() {
    await this.autosave.written();
    const images = await Promise.all(
      this.library.images.map(async (image) => {
        const { masked } = new Objects(await this.library.objects(image));
        return { fileName: image.name, width: image.width, height: image.height, items: masked };
      }),
    );
    return images.filter(({ items }) => items.length);
  }

  _askForFile(image, count) {
    const objects = count ? ` Its ${count === 1 ? "object is" : `${count} objects are`} kept.` : "";
    this._trouble(`${image.name} is not in this browser any more.${objects} Open the same file again to go on.`, "open");
  }

  _connect(picture, rows) {
    const { connection } = this.editor.open(this.api, () => this._store(picture), rows);
    this._working("Preparing");
    connection.addEventListener("state", ({ detail: { state } }) => {
      if (this.picture !== picture) return;
      if (state === "open") this._working();
      this._tell("state", { state });
    });
    connection.addEventListener("failed", ({ detail }) => this._failed(picture, detail));
  }

  async _store(picture) {
    this._working("Uploading", 0);
    const info = await picture.store(this.api, this._model, (progress) => {
      if (this.picture !== picture) return false;
      if (progress instanceof ApiError) this._working("Waiting for the server");
      else if (progress < 1) this._working("Uploading", progress);
      else this._working("Encoding");
      return true;
    });
    if (this.picture !== picture) return info;
    this._working("Preparing");
    this._tell("stored", { timings: picture.timings });
    this._noteModel(info.model);
    return info;
  }

  /** Warns if the server has another model than the one that made the masks; they stay until they are edited. */
  _noteModel(model) {
    const { image } = this;
    if (image.model && image.model !== model && this.editor.objects.masked.length) {
      this._trouble(`These masks were made by the model ${image.model}. From now on clicks are answered by ${model}.`);
    }
    this.library.note(image, { model });
  }

  /** Reports an error. An image that cannot be used is removed, since clicks on it would do nothing. */
  async _failed(picture, error) {
    if (this.picture !== picture) return;
    this._working();
    this._tell("state", { state: "failed" });
    this._trouble(error.message);
    if (error instanceof UnusablePicture) await this.remove([this.image]);
  }

  _working(text = "", sent = null) {
    this._tell("working", { text, sent });
  }

  _trouble(message, remedy = "") {
    this._tell("trouble", { message, remedy });
  }

  _tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

async function describe(file) {
  const picture = await Picture.read(file, file.name);
  const { width, height, thumbnail } = picture;
  picture.bitmap.close();
  return { width, height, thumbnail };
}
