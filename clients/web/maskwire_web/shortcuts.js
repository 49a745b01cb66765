// Keys, and the table of them that the help shows.

const typing = (target) => target.closest("input:not([type=range]), textarea, select, dialog");

/** Lines of the help: keys, what they do, and the action's name; those without are handled where they happen. */
const TABLE = [
  ["Click", "Inside the object"],
  ["Shift click, Right click", "Outside of it"],
  ["Drag", "Box around it"],
  ["Alt click", "Remove the nearest click"],
  ["Wheel, Pinch, +, −", "Zoom"],
  ["Space drag, Two fingers", "Move the image"],
  ["0", "Fit the image", "fit"],
  ["1", "Actual size", "actual"],
  ["I", "Include", "include"],
  ["X", "Exclude", "exclude"],
  ["B", "Box", "box"],
  ["N", "New object", "begin"],
  ["[, ]", "Object before, next"],
  ["R", "Rename", "rename"],
  ["Delete", "Delete the object", "delete"],
  ["H", "Show or hide the masks", "hide"],
  ["Ctrl Z", "Undo", "undo"],
  ["Ctrl Shift Z", "Redo", "redo"],
  ["E", "Everything", "everything"],
  ["Esc", "Cancel", "cancel"],
  ["C", "Copy the place under the pointer", "copyPlace"],
  ["S", "Download the mask", "save"],
  ["O", "Open an image", "open"],
  ["Arrows, Enter", "Move the cursor, click with it"],
  ["?", "This list", "help"],
];

const OTHER = { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", "[": "before", "]": "next", backspace: "delete", escape: "cancel" };

function nameOf(event) {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return event.shiftKey ? "redo" : "undo";
    return key === "y" ? "redo" : undefined;
  }
  if (event.altKey) return undefined;
  return OTHER[key] ?? TABLE.find(([keys, , name]) => name && keys.toLowerCase() === key)?.[2];
}

/** Calls actions[name]() for keys that are pressed anywhere but in a field. */
export function listen(actions) {
  addEventListener("keydown", (event) => {
    if (typing(event.target) || event.isComposing) return;
    const action = actions[nameOf(event)];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Fills the help's table. */
export function describe(element) {
  const keys = (text) => text.split(", ").map((key) => `<kbd>${key}</kbd>`).join(" ");
  element.innerHTML = TABLE.map(([text, meaning]) => `<div><span>${meaning}</span><span>${keys(text)}</span></div>`).join("");
}
