// A promise interface to IndexedDB.

const VERSION = 1;

const answered = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

export class Database {
  /**
   * Opens or creates a database. Rejects if the browser stores nothing, as in some private windows.
   *
   * @param stores key path of each store; null if keys are passed with each value
   */
  static async open(name, stores) {
    const request = indexedDB.open(name, VERSION);
    request.onupgradeneeded = () => {
      for (const [store, keyPath] of Object.entries(stores)) request.result.createObjectStore(store, { keyPath });
    };
    const opened = await answered(request);
    opened.onversionchange = () => opened.close();
    return new Database(opened);
  }

  constructor(opened) {
    this._opened = opened;
  }

  /** All values in a store, or in a key range. */
  all(store, range) {
    return this._do([store], "readonly", (of) => answered(of(store).getAll(range)));
  }

  keys(store) {
    return this._do([store], "readonly", (of) => answered(of(store).getAllKeys()));
  }

  get(store, key) {
    return this._do([store], "readonly", (of) => answered(of(store).get(key)));
  }

  put(store, value, key) {
    return this._do([store], "readwrite", (of) => answered(of(store).put(value, key)));
  }

  /** Replaces a value by change(value or undefined) in one transaction; leaves it if that returns undefined. */
  update(store, key, change) {
    return this._do([store], "readwrite", async (of) => {
      const changed = change(await answered(of(store).get(key)));
      if (changed) await answered(of(store).put(changed));
      return changed;
    });
  }

  /** Deletes keys or key ranges from several stores in one transaction: {store: key or range}. */
  delete(keys) {
    return this._do(Object.keys(keys), "readwrite", async (of) => {
      await Promise.all(Object.entries(keys).map(([store, key]) => answered(of(store).delete(key))));
    });
  }

  /** Resolves when the transaction is complete, so that writes are durable. */
  async _do(stores, mode, work) {
    const transaction = this._opened.transaction(stores, mode);
    const complete = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error ?? new Error("The browser's storage gave up."));
    });
    complete.catch(() => {}); // reported below
    const result = await work((store) => transaction.objectStore(store));
    await complete;
    return result;
  }
}
