// The images that were opened, with their objects, stored in this browser until they are removed.

import { Database } from "./database.js";
import { sha256 } from "./sha256.js";

const STORES = { images: "digest", files: null, objects: ["digest", "uid"] };
const MOST_IMAGES = 500;
const MOST_BYTES = 2 ** 30; // of files; the least recently opened ones are evicted first, but not their objects

const objectsOf = (digest) => IDBKeyRange.bound([digest, ""], [digest, "\uffff"]);
const byAge = (a, b) => a.opened - b.opened;

/**
 * Images are {digest, name, bytes, width, height, thumbnail, added, opened, model, hasFile, count}: `digest` is the
 * SHA-256 of the file, `model` made the masks, `count` is the number of objects. Each object is a row of
 * its own, {digest, uid, revision, ...}, so that two tabs can work on the same image.
 *
 * Fires "change" when the list has changed, and "trouble" with detail {message} when something cannot be stored.
 */
export class Library extends EventTarget {
  static async open() {
    const library = new Library(await Database.open("maskwire", STORES).catch(() => null));
    await library._load();
    return library;
  }

  constructor(database) {
    super();
    this._database = database;
    this.images = []; // in the order in which they were added
    this._loose = new Map(); // digest -> {file, rows}: what could not be stored, and lives as long as this tab
    this._others = new BroadcastChannel("maskwire");
    this._others.onmessage = () => this._load();
  }

  /** Whether a reload would lose nothing. */
  get isSafe() {
    return ![...this._loose.values()].some(({ file, rows }) => file || rows.size);
  }

  get bytes() {
    return this.images.reduce((sum, { bytes, hasFile }) => sum + (hasFile ? bytes : 0), 0);
  }

  find(digest) {
    return this.images.find((image) => image.digest === digest);
  }

  /**
   * Adds an image, or returns the one with the same content.
   *
   * @param describe async () => {width, height, thumbnail}; if it rejects, nothing is added
   */
  async add(file, name, describe) {
    const digest = await sha256(new Uint8Array(await file.arrayBuffer()));
    const known = this.find(digest);
    if (known?.hasFile) return known;
    const added = Date.now();
    const image = known ?? { digest, name, bytes: file.size, added, opened: added, count: 0, ...(await describe()) };
    await this._makeRoom(image);
    const kept = await this._try(() => this._database.put("files", file, digest));
    if (!kept) this._looseOf(digest).file = file;
    image.hasFile = kept;
    if (!known) this.images.push(image);
    await this._putImage(image);
    return image;
  }

  /** The file of an image; null if it is no longer stored. */
  async file({ digest }) {
    return this._loose.get(digest)?.file ?? (await this._database?.get("files", digest)) ?? null;
  }

  /** The objects of an image, in order of creation. */
  async objects({ digest }) {
    const kept = (await this._database?.all("objects", objectsOf(digest))) ?? [];
    const rows = new Map([...kept.map((row) => [row.uid, row]), ...(this._loose.get(digest)?.rows ?? [])]);
    return [...rows.values()].sort((a, b) => a.number - b.number || a.made - b.made);
  }

  /**
   * Stores an object. If another tab has changed it meanwhile, this version is stored as a new object.
   *
   * @returns its new {uid, revision}
   */
  async keep(image, row) {
    const { digest } = image;
    if (!this.find(digest)) await this._bringBack(image);
    let kept = { ...row, digest, revision: row.revision + 1 };
    const write = (before) => {
      if (before && before.revision !== row.revision) kept = { ...kept, uid: newUid(), revision: 1 };
      return before && kept.uid !== row.uid ? undefined : kept;
    };
    const { rows } = this._looseOf(digest);
    const done = await this._try(async () => {
      await this._database.update("objects", [digest, row.uid], write);
      if (kept.uid !== row.uid) await this._database.put("objects", kept);
    });
    if (done) rows.delete(row.uid);
    else rows.set(kept.uid, kept);
    return { uid: kept.uid, revision: kept.revision };
  }

  /** Deletes an object, unless another tab has changed it. */
  async forget({ digest }, { uid, revision }) {
    this._loose.get(digest)?.rows.delete(uid);
    const kept = await this._database?.get("objects", [digest, uid]);
    if (kept?.revision === revision) await this._try(() => this._database.delete({ objects: [digest, uid] }));
  }

  /** Changes properties of an image. */
  async note(image, changes) {
    Object.assign(image, changes);
    await this._putImage(image);
  }

  /** Removes images with their objects. */
  async remove(images) {
    for (const { digest } of images) {
      this._loose.delete(digest);
      await this._try(() => this._database.delete({ images: digest, files: digest, objects: objectsOf(digest) }));
    }
    this.images = this.images.filter((image) => !images.includes(image));
    this._changed();
  }

  async _load() {
    if (!this._database) return;
    const [images, keys] = await Promise.all([this._database.all("images"), this._database.keys("objects")]);
    const counts = new Map();
    for (const [digest] of keys) counts.set(digest, (counts.get(digest) ?? 0) + 1);
    const isNew = ({ digest }) => this._loose.get(digest)?.file && !images.some((image) => image.digest === digest);
    const loose = this.images.filter(isNew);
    this.images = [...images, ...loose].map((image) =>
      Object.assign(this.find(image.digest) ?? {}, image, { count: counts.get(image.digest) ?? image.count ?? 0 }),
    );
    this.images.sort((a, b) => a.added - b.added);
    this.dispatchEvent(new Event("change"));
  }

  /** Adds an image again that another tab has removed. */
  async _bringBack(image) {
    this.images.push(Object.assign(image, { hasFile: false }));
    await this._putImage(image);
  }

  async _putImage(image) {
    await this._try(() => this._database.put("images", image));
    this._changed();
  }

  /** Evicts the least recently opened files, and images without objects, to stay within the limits. */
  async _makeRoom(image) {
    const others = this.images.filter((other) => other !== image).sort(byAge);
    const withFile = others.filter(({ hasFile }) => hasFile);
    for (let over = this.bytes + image.bytes - MOST_BYTES; over > 0 && withFile.length; ) {
      over -= withFile[0].bytes;
      await this._giveUpFile(withFile.shift());
    }
    const empty = others.filter(({ count }) => !count);
    await this.remove(empty.slice(0, Math.max(0, others.length + 1 - MOST_IMAGES)));
  }

  async _giveUpFile(image) {
    await this._database?.delete({ files: image.digest });
    await this.note(image, { hasFile: false });
  }

  /** Returns whether a write succeeded. If the storage is full, evicts the oldest file and tries again. */
  async _try(write) {
    if (!this._database) return this._told("This browser keeps nothing, as in a private window: objects are lost when the page is closed.");
    for (;;) {
      try {
        await write();
        return true;
      } catch (error) {
        const oldest = this.images.filter(({ hasFile }) => hasFile).sort(byAge)[0];
        if (error.name !== "QuotaExceededError") return this._told(`This browser cannot keep objects: ${error.message}`);
        if (!oldest) return this._told("This browser's storage is full: what you do now is lost when the page is closed.");
        await this._giveUpFile(oldest);
      }
    }
  }

  _told(message) {
    this.dispatchEvent(new CustomEvent("trouble", { detail: { message } }));
    return false;
  }

  _looseOf(digest) {
    if (!this._loose.has(digest)) this._loose.set(digest, { file: null, rows: new Map() });
    return this._loose.get(digest);
  }

  _changed() {
    this._others.postMessage("changed");
    this.dispatchEvent(new Event("change"));
  }
}

/** A unique key for an object. */
export function newUid() {
  return [...crypto.getRandomValues(new Uint32Array(3))].map((word) => word.toString(36)).join("-");
}
