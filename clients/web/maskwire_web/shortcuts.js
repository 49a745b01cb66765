// Keyboard shortcuts, and the table in the help that lists them.

const typing = (target) => target.closest("input:not([type=range]), textarea, select, dialog");

/** The picture page's: touch gestures, keys, and further names of keys. */
const PICTURES = { touch: [
  ["Tap", "Add what is under the finger to the object"],
  ["Exclude, then tap", "Take it away from the object"],
  ["Box, then drag", "Draw a box around the object"],
  ["Brush, Eraser, then drag", "Paint or rub out by hand"],
  ["Two fingers", "Zoom and move the image"],
  ["Drag", "Move the image"],
  ["New", "Begin another object"],
  ["Everything", "Find all objects"],
], keys: [ // rows of the help: keys, description, name of the action; keys without an action are handled elsewhere
  ["Click", "Add what is there to the object"],
  ["Shift click, Right click", "Take it away from the object"],
  ["Drag", "Draw a box around the object"],
  ["Alt click", "Remove the nearest click"],
  ["Wheel, +, −", "Zoom"],
  ["Space drag", "Move the image"],
  ["0", "Fit the image", "fit"],
  ["A", "Actual size", "actual"],
  ["I", "Include", "include"],
  ["X", "Exclude", "exclude"],
  ["B", "Box", "box"],
  ["P", "Brush: paint what the mask lacks", "brush"],
  ["D", "Eraser: rub out what is too much", "eraser"],
  ["V", "Vertices: drag the outline; Alt click removes one", "vertices"],
  ["N", "New object", "begin"],
  ["[, ]", "Previous, next object"],
  ["Comma, Period", "Previous, next image"],
  ["M", "Another mask for a lone click", "otherMask"],
  ["R", "Rename", "rename"],
  ["1 … 9", "Give the object that label"],
  ["L", "Edit the labels", "editLabels"],
  ["Delete", "Delete the object", "delete"],
  ["H", "Show or hide the masks", "hide"],
  ["Ctrl Z", "Undo", "undo"],
  ["Ctrl Shift Z", "Redo", "redo"],
  ["E", "Everything", "everything"],
  ["Esc", "Cancel", "cancel"],
  ["C", "Copy the position under the pointer", "copyPlace"],
  ["S", "Download the mask", "save"],
  ["O", "Open images", "open"],
  ["Arrows, Enter", "Move the cursor, click with it"],
  ["?", "This help", "help"],
], other: { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", "[": "before", "]": "next", ",": "imageBefore", ".": "imageAfter", backspace: "delete", escape: "cancel", ...Object.fromEntries(Array.from({ length: 9 }, (_, index) => [index + 1, `label${index + 1}`])) } };

function nameOf(event, { keys, other }) {
  const key = event.key.toLowerCase();
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return event.shiftKey ? "redo" : "undo";
    return key === "y" ? "redo" : undefined;
  }
  if (event.altKey) return undefined;
  return other[event.shiftKey ? `shift ${key}` : key] ?? other[key] ?? keys.find(([text, , name]) => name && text.toLowerCase() === key)?.[2];
}

/** Calls actions[name]() for keys of a table that are pressed outside of text fields. */
export function listen(actions, table = PICTURES) {
  addEventListener("keydown", (event) => {
    if (typing(event.target) || event.isComposing) return;
    const action = actions[nameOf(event, table)];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Fills the table in the help. */
export function describe(element, { touch, keys: rows } = PICTURES) {
  const keys = (text) => text.split(", ").map((key) => `<kbd>${key}</kbd>`).join(" ");
  const lines = (table) => table.map(([text, meaning]) => `<div><span>${meaning}</span><span>${text}</span></div>`).join("");
  const keyed = rows.map(([text, meaning]) => [keys(text), meaning]);
  element.innerHTML = `<div class="lines for-touch">${lines(touch)}</div><div class="lines for-mouse">${lines(keyed)}</div>`;
}
