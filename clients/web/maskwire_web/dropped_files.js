// Files that are chosen, dropped or pasted, and the contents of folders.

const HIDDEN = /^\.|^(Thumbs\.db|desktop\.ini)$/;

/**
 * The files of a drop or a paste, including those in folders, sorted by name.
 *
 * @param transfer a DataTransfer; it is read synchronously, since it is empty after the event
 * @returns a promise of {files, isFolder}; folders may contain files that are not images
 */
export function filesOf(transfer) {
  const entries = [...(transfer?.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) {
    return Promise.resolve({ files: [...(transfer?.files ?? [])], isFolder: false });
  }
  return Promise.all(entries.map(filesIn)).then((lists) => ({ files: byName(lists.flat()), isFolder: true }));
}

/** The files chosen in an input element. */
function chosen(input) {
  const isFolder = input.webkitdirectory;
  return { files: isFolder ? byName([...input.files]) : [...input.files], isFolder };
}

/**
 * Opens files that are chosen in the page's inputs or dropped anywhere on it.
 *
 * @param open called with {files, isFolder}
 */
export function listen(inputs, open) {
  for (const input of inputs) {
    input.onchange = () => {
      open(chosen(input));
      input.value = ""; // so that choosing the same file again fires "change"
    };
  }
  const { classList } = document.body;
  addEventListener("dragover", (event) => {
    event.preventDefault();
    classList.add("dragging");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? classList.remove("dragging"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    classList.remove("dragging");
    filesOf(event.dataTransfer).then(open);
  });
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
    const some = await once((resolve, reject) => reader.readEntries(resolve, reject)); // in batches of a hundred
    if (!some.length) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesIn))).flat();
}
