// Entry point of the page for clips: creates its parts and connects them.

import { Api, ApiError } from "../api.js";
import { askToken, confirmed } from "../dialogs.js";
import { listen } from "../dropped_files.js";
import { save } from "../export.js";
import { Notices } from "../notices.js";
import { Panel } from "../panel.js";
import { Pointing } from "../pointing.js";
import * as shortcuts from "../shortcuts.js";
import { Stage } from "../stage.js";
import { Status } from "../status.js";
import { Tools } from "../tools.js";
import { Viewport } from "../viewport.js";
import { TrackEditor } from "./editor.js";
import { KEYS } from "./keys.js";
import { askHandOver, readClip } from "./opening.js";
import { canWriteFilms, film } from "./film.js";
import { Player } from "./player.js";
import { UnusableClip } from "./reading.js";
import { davis, youtubeVis } from "./saving.js";
import { TimelineView } from "./timeline_view.js";
import { Working } from "./working.js";

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const ZOOM_STEP = 1.25;
const NO_AUTOMATIC_MASKS = { progress: null };

const notices = new Notices($("spoken"), $("notices"));
const api = new Api(askToken);
export const viewport = new Viewport();
export const editor = new TrackEditor();
export const player = new Player();
const status = new Status();
const working = new Working(editor);
const stage = new Stage($("picture"), $("overlay"), viewport);
const isTouch = matchMedia("(pointer: coarse)");
let clip = null;
let connection = ""; // state of the connection to the server
let isReading = false;
let known = null; // the default model, once it is known

// Opening

async function open({ files: given, isFolder }) {
  const files = isFolder ? given.filter(({ type }) => type.startsWith("image/")) : given;
  if (!files.length || isReading) return;
  if (clip && editor.objects.drawn.length && !(await confirmed("Open another clip?", "The objects of this one are lost, unless you have downloaded them.", "Open"))) return;
  notices.clear();
  try {
    const [model, read] = [await defaultModel(), await taken(files)];
    if (!read) return;
    const handOver = !model.tracker;
    if (!handOver || (await askHandOver(model))) await show(read, model, handOver);
  } catch (error) {
    const isKnown = error instanceof UnusableClip || error instanceof ApiError;
    notices.error(isKnown ? error.message : `The clip cannot be opened: ${error.message}`);
  }
}

async function defaultModel() {
  if (!known) {
    const { models = [] } = await api.models();
    known = models.find((one) => one.is_default) ?? models[0];
  }
  return known;
}

/** Resolves to the clip, or to null if it was given up. */
async function taken(files) {
  isReading = true;
  try {
    return await readClip(files, (done) => {
      working.show("Reading the frames", done, () => (isReading = false));
      return isReading;
    });
  } finally {
    isReading = false;
    working.end();
  }
}

async function show(read, model, handOver) {
  close();
  clip = read;
  const track = editor.open(api, clip, { model: model.name, handOver });
  track.addEventListener("state", ({ detail }) => setConnection(detail.state));
  track.addEventListener("failed", ({ detail }) => {
    setConnection("failed");
    notices.error(detail.message);
  });
  track.addEventListener("working", ({ detail: { sent, waits } }) => {
    if (sent === null) working.end();
    else working.show(waits ? `Sending the frames again soon. ${waits}` : "Sending the frames", sent);
  });
  track.addEventListener("restored", () => {
    const text = "The server no longer had the clip. It has been sent again, with your clicks.";
    notices.show(text);
    notices.say(text);
  });
  $("about").hidden = !handOver;
  $("about-model").textContent = model.name;
  $("title").textContent = `${clip.name} · ${clip.width} × ${clip.height} · ${clip.length} frames`;
  $("welcome").hidden = true;
  $("player").hidden = $("tools").hidden = $("panel").hidden = false;
  pointing.show(clip);
  strip.show(clip);
  await player.open(clip);
  $("overlay").focus({ preventScroll: true });
}

function close() {
  editor.close();
  clip?.close();
  clip = null;
}

const isAway = () => ["waiting", "opening", "failed"].includes(connection);

function setConnection(state) {
  connection = state;
  status.connection(state);
  panel.show(editor.objects, isAway());
  working.connection(state);
}

function showNext() {
  const { items } = editor.objects;
  const how = isTouch.matches ? "Tap" : "Click";
  let text = `${how} an object to get its mask on this frame, or drag a box around it.`;
  if (items.some((item) => item.prompts.size)) text = "Follow finds the objects on the other frames. New begins another object.";
  if (items.some((item) => item.found.size > item.prompts.size)) text = `Go to a frame that is wrong, ${how.toLowerCase()} it right, and follow again.`;
  $("next").hidden = !clip || Boolean(editor.following);
  $("next").textContent = text;
}

// Connections between the parts

const pointing = new Pointing($("overlay"), viewport, editor, NO_AUTOMATIC_MASKS, {
  place: (place) => status.place(place),
  drawn: () => stage.draw("overlay"),
  keep: () => {},
});

const panel = new Panel($("objects"), {
  select: (item) => editor.objects.select(item),
  delete: (item) => editor.delete(item),
  changed: () => editor.objects.changed(),
});

const strip = new TimelineView($("strip"), {
  seek: (frame) => {
    player.pause();
    player.seek(frame);
  },
});

stage.scene = () => ({
  items: editor.objects.items.map(onFrame),
  selected: onFrame(editor.objects.selected),
  preview: editor.preview,
  layer: null,
  lit: null,
  cursor: pointing.cursor,
});
strip.scene = () => ({ items: editor.objects.items, selected: editor.objects.selected, frame: editor.at.frame });

/** An object as it is drawn: clicks that wait are drawn on their frame alone. */
const drawn = new WeakMap();
function onFrame(item) {
  const { mask, colour, visible, prompt, isEmpty } = item;
  const pending = item.pending.filter(({ frame }) => frame === editor.at.frame);
  if (!drawn.has(item)) drawn.set(item, {});
  return Object.assign(drawn.get(item), { mask, colour, visible, prompt, pending, isEmpty });
}

player.addEventListener("frame", ({ detail: { frame, bitmap } }) => {
  editor.show(frame);
  stage.replace(bitmap);
});
player.addEventListener("state", () => {
  const name = player.isPlaying ? "pause" : "play";
  $("play").querySelector("use").setAttribute("href", `#i-${name}`);
  $("play").ariaLabel = player.isPlaying ? "Pause" : "Play";
});
viewport.addEventListener("change", () => clip && status.zoom(viewport.scale));
editor.addEventListener("found", ({ detail: { frame, timings } }) => {
  player.pause();
  player.seek(frame);
  $("timings").textContent = `frame ${Math.round(timings?.total_ms ?? 0)} ms`;
});
editor.addEventListener("error", ({ detail }) => notices.error(detail.message));
editor.addEventListener("change", () => {
  stage.draw("overlay");
  strip.draw();
  panel.show(editor.objects, isAway());
  working.draw();
  showNext();
  showTime();
  const { items } = editor.objects;
  const isPrompted = items.some((item) => item.prompts.size);
  $("follow").disabled = $("follow-back").disabled = !isPrompted || Boolean(editor.following);
  const isFound = items.some((item) => item.found.size);
  for (const button of all("[data-export]")) button.disabled = !isFound || (button.dataset.export === "film" && !canWriteFilms());
});
editor.timeline.addEventListener("change", () => {
  $("undo").disabled = !editor.timeline.canUndo;
  $("redo").disabled = !editor.timeline.canRedo;
});
addEventListener("beforeunload", (event) => clip && editor.objects.drawn.length && event.preventDefault());
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => event.persisted && location.reload()); // its clip was closed

function showTime() {
  if (!clip) return;
  const { frame } = editor.at;
  $("time").innerHTML = `<b>${frame + 1}</b> of ${clip.length}<span> · ${clip.frames[frame].time_s.toFixed(2)} s</span>`;
  const slider = $("strip");
  Object.assign(slider, { ariaValueMax: clip.length, ariaValueNow: frame + 1 });
}

const WRITERS = {
  vis: (items) => youtubeVis(items, clip),
  davis: (items) => davis(items, clip, (done) => working.show("Writing the masks", done)),
  film(items) {
    let isWanted = true;
    return film(items, clip, (done) => {
      working.show("Writing the film", done, () => (isWanted = false));
      return isWanted;
    });
  },
};

async function download(kind) {
  const items = editor.objects.items.filter((item) => item.found.size);
  if (!items.length) return notices.error("There is no mask yet. Click an object first.");
  try {
    const written = await WRITERS[kind](items);
    if (written) save(written);
  } catch (error) {
    notices.error(error.message);
  }
  working.end();
}

// Buttons and keys

const tools = new Tools(all("[data-tool]"), (name) => pointing.choose(name));

function hideOrShow() {
  const visible = !editor.objects.items.some((item) => item.visible);
  for (const item of editor.objects.items) item.visible = visible;
  editor.objects.changed();
}

async function copyPlace() {
  if (!pointing.place) return;
  await navigator.clipboard?.writeText(pointing.place.join(", "));
  notices.show(`Copied position ${pointing.place.join(", ")}`);
}

const withClip = (action) => () => clip && action();
const actions = {
  open: () => $("file").click(),
  help: () => $("help").showModal(),
  fit: withClip(() => viewport.fit()),
  actual: withClip(() => viewport.zoom(1 / viewport.scale)),
  zoomIn: withClip(() => viewport.zoom(ZOOM_STEP)),
  zoomOut: withClip(() => viewport.zoom(1 / ZOOM_STEP)),
  include: () => tools.choose("include"),
  exclude: () => tools.choose("exclude"),
  box: () => tools.choose("box"),
  play: withClip(() => player.toggle()),
  frameBefore: withClip(() => player.step(-1)),
  frameAfter: withClip(() => player.step(1)),
  tenBefore: withClip(() => player.step(-10)),
  tenAfter: withClip(() => player.step(10)),
  first: withClip(() => player.step(-clip.length)),
  last: withClip(() => player.step(clip.length)),
  follow: withClip(() => editor.following || editor.follow(false)),
  followBack: withClip(() => editor.following || editor.follow(true)),
  begin: withClip(() => editor.objects.begin()),
  before: withClip(() => editor.objects.step(-1)),
  next: withClip(() => editor.objects.step(1)),
  rename: withClip(() => panel.rename(editor.objects.selected)),
  delete: withClip(() => editor.delete(editor.objects.selected)),
  hide: withClip(hideOrShow),
  undo: () => editor.timeline.undo(),
  redo: () => editor.timeline.redo(),
  cancel: () => pointing.gestures.cancel() || (editor.following ? editor.stop() : editor.leave()),
  copyPlace,
  save: withClip(() => download("vis")),
};
shortcuts.listen(actions, KEYS);
shortcuts.describe($("shortcuts"), KEYS);

for (const [id, action] of Object.entries({
  open: actions.open,
  choose: actions.open,
  "choose-folder": () => $("folder").click(),
  "help-button": actions.help,
  new: actions.begin,
  undo: actions.undo,
  redo: actions.redo,
  fit: actions.fit,
  play: actions.play,
  before: actions.frameBefore,
  after: actions.frameAfter,
  follow: actions.follow,
  "follow-back": actions.followBack,
  connection: () => editor.track?.connection.retryNow(),
})) {
  $(id).onclick = action;
}
for (const button of all("[data-export]")) button.onclick = () => download(button.dataset.export);
listen([$("file"), $("folder")], open);

const followTouch = () => document.body.classList.toggle("touch", isTouch.matches);
isTouch.addEventListener("change", followTouch);
followTouch();
tools.choose("include");
defaultModel().then(
  (model) => {
    if (!model) return;
    $("model").hidden = false;
    $("model").textContent = model.note ? `${model.name} model: rough masks` : model.name;
  },
  (error) => notices.error(error.message),
);
