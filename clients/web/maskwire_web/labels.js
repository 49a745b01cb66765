// Labels: the classes of objects, each with a colour and, the first nine, a key. Kept in this browser for all images.

import { COLOURS } from "./colours.js";

const KEPT = "maskwire.labels"; // in localStorage: [{name, colour}]
const LINE = /^(.*?)\s*(#[0-9a-f]{6})?$/i; // of the list that people write

let labels = JSON.parse(localStorage.getItem(KEPT) ?? "[]");
let active = null; // name of the label that new objects take

/** Fires "change" when the list or the active label has changed. */
export const changes = new EventTarget();
addEventListener("storage", ({ key }) => key === KEPT && take(JSON.parse(localStorage.getItem(KEPT) ?? "[]")));

function take(list) {
  labels = list;
  if (!labels.some(({ name }) => name === active)) active = null;
  changes.dispatchEvent(new Event("change"));
}

/** All labels, {name, colour} each, in their order. */
export const all = () => labels;

/** The label that new objects take, "" for none. */
export const current = () => active ?? "";

/** Chooses the label that new objects take. */
export function choose(name) {
  active = name || null;
  changes.dispatchEvent(new Event("change"));
}

/** The colour of a label; undefined for one that is not in the list. */
export const colourOf = (name) => labels.find((label) => label.name === name)?.colour;

/** The list as people write it: a label a line, with a colour behind it where they chose one. */
export const text = () => labels.map(({ name, colour }, index) => (colour === COLOURS[index % COLOURS.length] ? name : `${name} ${colour}`)).join("\n");

/** Takes the list as people wrote it; labels that are written twice count once. */
export function write(lines) {
  const written = lines.split("\n").map((line) => LINE.exec(line.trim())).filter(([, name]) => name);
  const once = written.filter(([, name], index) => written.findIndex(([, other]) => other === name) === index);
  const list = once.map(([, name, colour], index) => ({ name, colour: colour?.toLowerCase() ?? COLOURS[index % COLOURS.length] }));
  localStorage.setItem(KEPT, JSON.stringify(list));
  take(list);
}
