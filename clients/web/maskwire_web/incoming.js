// Files that people choose, drop or paste: several at once, and folders.

const HIDDEN = /^\.|^(Thumbs\.db|desktop\.ini)$/;

/**
 * The files of a drop or a paste, those in folders included, by name.
 *
 * @param transfer a DataTransfer; read before this returns, since it is empty afterwards
 * @returns a promise of {files, isFolder}; in folders there may be files that are no pictures
 */
export function filesOf(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    return Promise.resolve({ files: [...(transfer?.files ?? [])], isFolder: false });
  }
  return Promise.all(entries.map(filesIn)).then((lists) => ({ files: byName(lists.flat()), isFolder: true }));
}

/** The files of an input. */
export function chosen(input) {
  const isFolder = input.webkitdirectory;
  return { files: isFolder ? byName([...input.files]) : [...input.files], isFolder };
}

function byName(files) {
  const visible = files.filter(({ name }) => !HIDDEN.test(name));
  return visible.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
}

const once = (call) => new Promise((resolve, reject) => call(resolve, reject));

async function filesIn(entry) {
  if (entry.isFile) return [await once((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await once((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesIn))).flat();
}
