// The image that is worked on: out of the library, onto the stage, to the server, and its objects with it.

import { ApiError } from "./api.js";
import { Keeper } from "./keeper.js";
import { Picture, UnusablePicture } from "./picture.js";

const LAST = "maskwire.image"; // of this tab

/**
 * Fires "change" when another image is on the stage, or none; "working" with detail {text, sent}: what people wait for,
 * and the share that is done where it is known; "state" with detail {state} of the connection; "stored" with detail
 * {timings}; "trouble" with detail {message, remedy}.
 */
export class Workspace extends EventTarget {
  constructor(api, library, editor) {
    super();
    Object.assign(this, { api, library, editor });
    this.keeper = new Keeper(editor, library);
    this.image = null; // of the library
    this.picture = null;
  }

  /** Adds files to the library and opens the first of them. Files in folders that are no pictures are left out. */
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

  /** Opens the image that this tab had before it was reloaded, or the one that was opened last. */
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
    if (image !== this.image) return picture?.bitmap.close(); // another was opened meanwhile
    if (!picture) return this._askForFile(image, rows.length);
    this.picture = picture;
    this._connect(picture, rows);
    this.keeper.begin(image);
    this._tell("change");
    await this.library.note(image, { opened: Date.now() });
  }

  /** The next image of the list or the one before, round and round. */
  step(by) {
    const { images } = this.library;
    const at = images.indexOf(this.image);
    return images.length > 1 ? this.open(images[(at + by + images.length) % images.length]) : undefined;
  }

  /** Takes the image off the stage. Its objects stay in the library. */
  async close() {
    const { picture } = this;
    const kept = this.keeper.end();
    this.picture = this.image = null;
    this.editor.close();
    picture?.bitmap.close();
    this._working();
    this._tell("state", { state: "" });
    this._tell("change");
    await kept;
  }

  /** Removes images from the library; one that is on the stage makes way for its neighbour. */
  async remove(images) {
    const at = this.library.images.indexOf(this.image);
    const isShown = images.includes(this.image);
    if (isShown) await this.close();
    await this.library.remove(images);
    const rest = this.library.images;
    if (isShown && rest.length) await this.open(rest[Math.min(at, rest.length - 1)]);
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
    const info = await picture.store(this.api, (progress) => {
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

  /** Masks stay as they are when the server has another model, until they are clicked. */
  _noteModel(model) {
    const { image } = this;
    if (image.model && image.model !== model && this.editor.objects.masked.length) {
      this._trouble(`These masks were made by the model ${image.model}. From now on clicks are answered by ${model}.`);
    }
    this.library.note(image, { model });
  }

  /** A picture that cannot be used does not stay on the stage, where clicks would do nothing. */
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
