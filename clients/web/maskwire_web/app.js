// Puts the parts together.

import { Api } from "./api.js";
import { Editor } from "./editor.js";
import { Everything } from "./everything.js";
import { Notices } from "./notices.js";
import { Panel } from "./panel.js";
import { Picture, imageOf } from "./picture.js";
import { Pointing } from "./pointing.js";
import { Search } from "./search.js";
import { Share } from "./share.js";
import * as shortcuts from "./shortcuts.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { Viewport } from "./viewport.js";

const $ = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];
const ZOOM_STEP = 1.25;

const notices = new Notices($("spoken"), $("notices"));
const api = new Api(askToken);
export const viewport = new Viewport();
export const editor = new Editor();
const everything = new Everything();
const status = new Status();
const stage = new Stage($("picture"), $("overlay"), viewport);
const share = new Share(editor, notices, api.base);
let picture = null; // on the stage

// The image

async function open(blob, fileName) {
  let next = null;
  try {
    next = await Picture.read(blob, fileName);
    close();
    picture = next;
    pointing.show(next);
    $("welcome").hidden = true;
    $("panel").hidden = $("tools").hidden = false;
    $("title").textContent = `${fileName} · ${next.width} × ${next.height}`;
    stage.show(next.bitmap);
    $("overlay").focus({ preventScroll: true });
    working("Uploading", 0);
    const image = await store(next);
    if (picture !== next) return;
    status.image(next.timings);
    connect(next, image);
  } catch (error) {
    if (next && picture !== next) return; // another was opened meanwhile
    working("");
    notices.error(error.message);
  }
}

/** Stores a picture as long as it is the one on the stage, and says how far it has come. */
function store(one) {
  return one.store(api, (progress) => {
    if (picture !== one) return false;
    if (progress instanceof Error) working("Waiting for the server");
    else if (progress < 1) working("Uploading", progress);
    else working("Encoding");
    return true;
  });
}

function connect(opened, image) {
  const { connection } = editor.open(api, image, () => store(opened));
  working("Preparing");
  connection.addEventListener("state", ({ detail: { state } }) => {
    status.connection(state);
    if (state === "open") {
      working("");
      notices.say("Connected. The image is ready for clicks.");
    } else if (state === "waiting") notices.say("The server is away. Reconnecting; nothing is lost.");
  });
  connection.addEventListener("failed", ({ detail }) => {
    working("");
    status.connection("failed");
    notices.error(detail.message);
  });
}

function close() {
  everything.clear();
  editor.close();
  status.connection("");
  picture?.bitmap.close();
  picture = null;
}

/** @param sent share that was sent, or null where nobody knows how long it takes */
function working(text, sent = null) {
  $("working").hidden = !text;
  $("working-text").textContent = text;
  if (sent === null) $("working-bar").removeAttribute("value");
  else $("working-bar").value = sent;
}

async function openSample() {
  const response = await fetch(new URL("assets/sample.jpg", document.baseURI)).catch(() => null);
  if (response?.ok) await open(await response.blob(), "sample.jpg");
  else notices.error("The sample cannot be loaded. Is the server running?");
}

function openFirst(transfer) {
  const file = imageOf(transfer);
  if (file) open(file, file.name || "image.png");
  return Boolean(file);
}

async function askToken(wasWrong) {
  $("token-text").textContent = wasWrong
    ? "This token was refused. Try another."
    : "This server wants a token. It is kept until the tab is closed.";
  $("token-value").value = "";
  $("token").returnValue = "";
  $("token").showModal();
  await new Promise((resolve) => $("token").addEventListener("close", resolve, { once: true }));
  return $("token").returnValue === "ok" ? $("token-value").value.trim() : "";
}

// The parts, told of one another

const keep = (masks) => {
  editor.keep(everything.items(masks));
  notices.say(masks.length === 1 ? "Kept as an object." : `${masks.length} masks kept as objects.`);
  if (masks.length > 1) everything.clear();
};

const pointing = new Pointing($("overlay"), viewport, editor, everything, {
  place: (place) => status.place(place),
  drawn: () => stage.draw("overlay"),
  keep,
});

const panel = new Panel($("objects"), {
  select: (item) => select(() => editor.objects.select(item)),
  delete: (item) => editor.delete(item),
  changed: () => editor.objects.changed(),
});

const search = new Search(everything, {
  async start(settings, minScore) {
    editor.leave();
    try {
      await everything.run(api, editor.session.image, settings, minScore);
    } catch (error) {
      return notices.error(error.message);
    }
    if (everything.progress && !everything.found.length) {
      everything.clear();
      notices.error("No mask was found that is stable enough. Try a lower stability, or more clicks.");
    }
  },
  keep,
});

stage.scene = () => ({
  items: editor.objects.items,
  selected: editor.objects.selected,
  preview: editor.preview,
  layer: everything.layer,
  lit: everything.progress && pointing.lit,
  cursor: pointing.cursor,
});

viewport.addEventListener("change", () => picture && status.zoom(viewport.scale));
everything.addEventListener("change", () => stage.draw("overlay"));
editor.addEventListener("answer", ({ detail }) => status.mask(detail.timings, detail.roundTripMs));
editor.addEventListener("error", ({ detail }) => notices.error(detail.message));
editor.addEventListener("change", () => {
  stage.draw("overlay");
  panel.show(editor.objects);
  const { selected, masked } = editor.objects;
  for (const button of all("[data-export], [data-copy]")) {
    button.disabled = ["coco", "polygons"].includes(button.dataset.export) ? !masked.length : !selected.mask;
  }
});
editor.timeline.addEventListener("change", () => {
  $("undo").disabled = !editor.timeline.canUndo;
  $("redo").disabled = !editor.timeline.canRedo;
});

// Buttons and keys

function select(action) {
  editor.leave();
  action();
}

function setTool(name) {
  pointing.tool = name;
  for (const button of all("[data-tool]")) {
    button.setAttribute("aria-checked", button.dataset.tool === name);
    button.tabIndex = button.dataset.tool === name ? 0 : -1;
  }
}

function moveTool(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const buttons = all("[data-tool]");
  const next = buttons[(buttons.indexOf(event.target) + by + buttons.length) % buttons.length];
  setTool(next.dataset.tool);
  next.focus();
}

function hideOrShow() {
  const visible = !editor.objects.items.some((item) => item.visible && item.mask);
  for (const item of editor.objects.items) item.visible = visible;
  editor.objects.changed();
}

const withPicture = (action) => () => picture && action();
const withSession = (action) => () => editor.session && action();
const actions = {
  open: () => $("file").click(),
  help: () => $("help").showModal(),
  fit: withPicture(() => viewport.fit()),
  actual: withPicture(() => viewport.zoom(1 / viewport.scale)),
  zoomIn: withPicture(() => viewport.zoom(ZOOM_STEP)),
  zoomOut: withPicture(() => viewport.zoom(1 / ZOOM_STEP)),
  include: () => setTool("include"),
  exclude: () => setTool("exclude"),
  box: () => setTool("box"),
  begin: withSession(() => select(() => editor.objects.begin())),
  before: withSession(() => select(() => editor.objects.step(-1))),
  next: withSession(() => select(() => editor.objects.step(1))),
  rename: withSession(() => panel.rename(editor.objects.selected)),
  delete: withSession(() => editor.delete(editor.objects.selected)),
  hide: withSession(hideOrShow),
  undo: () => editor.timeline.undo(),
  redo: () => editor.timeline.redo(),
  everything: withSession(() => search.toggle()),
  cancel: () => pointing.gestures.cancel() || search.cancel() || editor.leave(),
  copyPlace: () => pointing.place && share.copy(pointing.place.join(", "), `place ${pointing.place.join(", ")}`),
  save: withPicture(() => share.download("mask", picture)),
};
shortcuts.listen(actions);
shortcuts.describe($("shortcuts"));

for (const [id, action] of Object.entries({
  open: actions.open,
  choose: actions.open,
  sample: openSample,
  "help-button": actions.help,
  new: actions.begin,
  undo: actions.undo,
  redo: actions.redo,
  everything: actions.everything,
  fit: actions.fit,
  connection: () => editor.session?.connection.retryNow(),
})) {
  $(id).onclick = action;
}
for (const button of all("[data-tool]")) {
  button.onclick = () => setTool(button.dataset.tool);
  button.onkeydown = moveTool;
}
for (const button of all("[data-export]")) button.onclick = () => share.download(button.dataset.export, picture);
for (const button of all("[data-copy]")) button.onclick = () => share.copyPrompt(button.dataset.copy, picture);
$("file").onchange = ({ target }) => {
  openFirst(target);
  target.value = ""; // the same file may be chosen again
};

// Dropping and pasting

addEventListener("paste", (event) => openFirst(event.clipboardData) && event.preventDefault());
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  openFirst(event.dataTransfer);
});

$("token-cancel").onclick = () => $("token").close("");
setTool("include");
api
  .models()
  .then(({ models = [] }) => {
    const model = models.find((one) => one.is_default) ?? models[0];
    if (!model) return;
    $("model").hidden = false;
    $("model").textContent = model.name;
    $("model").title = [model.note, model.device].filter(Boolean).join(" · ");
    if (model.note) search.isRough();
  })
  .catch((error) => notices.error(error.message));
