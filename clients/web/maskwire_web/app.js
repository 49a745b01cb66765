// Entry point: creates the parts of the page and connects them.

import { Api } from "./api.js";
import { AutomaticMasks } from "./automatic_masks.js";
import { AutomaticMasksForm } from "./automatic_masks_form.js";
import { askToken } from "./dialogs.js";
import * as dropped from "./dropped_files.js";
import { Editor } from "./editor.js";
import { Filmstrip } from "./filmstrip.js";
import { Guide } from "./guide.js";
import { LabelBar } from "./label_bar.js";
import { Library } from "./library.js";
import { LocalDecoding } from "./local_decoding.js";
import { ModelChoice } from "./model_choice.js";
import { Notices } from "./notices.js";
import { Panel } from "./panel.js";
import { Pointing } from "./pointing.js";
import { Share } from "./share.js";
import { Sharpening } from "./sharpening.js";
import * as shortcuts from "./shortcuts.js";
import { Stage } from "./stage.js";
import { Status } from "./status.js";
import { manageImages } from "./storage_dialog.js";
import { Tools } from "./tools.js";
import { View } from "./view.js";
import { Viewport } from "./viewport.js";
import { Workspace } from "./workspace.js";

const $ = (id) => document.getElementById(id);
const SPACE_BELOW_PX = 64; // for the hint above the tools, and around both
const all = (selector) => [...document.querySelectorAll(selector)];

const notices = new Notices($("spoken"), $("notices"));
const api = new Api(askToken);
export const viewport = new Viewport();
export const local = new LocalDecoding(api);
export const editor = new Editor(local);
export const library = await Library.open();
export const workspace = new Workspace(api, library, editor);
const sharpening = new Sharpening(api);
const automaticMasks = new AutomaticMasks();
const guide = new Guide();
const status = new Status();
const stage = new Stage($("picture"), $("overlay"), viewport);
const view = new View(viewport, stage);
const labelBar = new LabelBar(editor);
const share = new Share(editor, workspace, notices, api.base);
const filmstrip = new Filmstrip({
  open: (digest) => workspace.open(library.find(digest)),
  step: (by) => workspace.step(by),
});
let connection = ""; // state of the connection to the server

// Images

async function add({ files, isFolder }) {
  if (!files.length) return;
  notices.clear();
  await workspace.add(files, isFolder);
}

async function addSample() {
  const response = await fetch(new URL("assets/sample.jpg", document.baseURI)).catch(() => null);
  if (!response?.ok) return notices.error("The sample cannot be loaded. Is the server running?");
  await add({ files: [new File([await response.blob()], "sample.jpg", { type: "image/jpeg" })] });
}

const showImages = () => filmstrip.show(library.images, workspace.image);

library.addEventListener("change", showImages);
library.addEventListener("trouble", ({ detail }) => notices.error(detail.message));
workspace.addEventListener("change", () => {
  const { image, picture } = workspace;
  automaticMasks.clear();
  pointing.show(picture);
  $("welcome").hidden = Boolean(image);
  $("panel").hidden = $("tools").hidden = $("view").hidden = !picture;
  viewport.insets.bottom = $("tools").offsetHeight + SPACE_BELOW_PX;
  stage.show(picture?.bitmap ?? null);
  $("title").textContent = image ? `${image.name} · ${image.width} × ${image.height}` : "";
  if (picture) $("overlay").focus({ preventScroll: true });
  showImages();
  showNext();
});
workspace.addEventListener("stored", ({ detail }) => status.image(detail.timings));
workspace.addEventListener("trouble", ({ detail: { message, remedy } }) => {
  notices.error(message, remedy === "open" ? { label: "Open", run: actions.open } : null);
});
workspace.addEventListener("working", ({ detail: { text, sent } }) => {
  working = { text, sent };
  showWorking();
});
workspace.addEventListener("state", ({ detail: { state } }) => {
  if (state === "open" && connection !== "open") notices.say("Connected. The image is ready for clicks.");
  if (state === "waiting") notices.say("The server is away. Reconnecting; nothing is lost.");
  connection = state;
  status.connection(state);
  panel.show(editor.objects, isAway());
  showWorking();
});
addEventListener("beforeunload", (event) => {
  if (!library.isSafe || workspace.autosave.isBusy || editor.isWaiting) event.preventDefault();
});

// Progress

let working = { text: "", sent: null };
const isAway = () => ["waiting", "opening", "failed"].includes(connection);

function showWorking() {
  const waiting = editor.objects.items.reduce((sum, item) => sum + item.pending.length, 0);
  let { text, sent } = working;
  if (!text && isAway() && waiting) {
    text = `Reconnecting. ${waiting === 1 ? "1 click waits" : `${waiting} clicks wait`} for the server`;
  }
  $("working").hidden = !text;
  $("working-text").textContent = text;
  if (sent === null) $("working-bar").removeAttribute("value");
  else $("working-bar").value = sent;
}

function showNext() {
  const byPrompts = editor.objects.masked.length ? "more" : "first";
  const step = automaticMasks.progress ? "everything" : pointing.drawHand ? pointing.tool : byPrompts;
  guide.next(workspace.picture ? step : null);
}

// Connections between the parts

const keep = (masks) => {
  editor.keep(automaticMasks.items(masks));
  notices.say(masks.length === 1 ? "Kept as an object." : `${masks.length} masks kept as objects.`);
  if (masks.length > 1) automaticMasks.clear();
};

export const pointing = new Pointing($("overlay"), viewport, editor, automaticMasks, {
  place: (place) => status.place(place),
  drawn: () => stage.draw("overlay"),
  keep,
});

const panel = new Panel($("objects"), {
  select: (item) => select(() => editor.objects.select(item)),
  delete: (item) => editor.delete(item),
  changed: () => editor.objects.changed(),
  other(item) {
    select(() => editor.objects.select(item));
    editor.chooseCandidate();
  },
});

const search = new AutomaticMasksForm(automaticMasks, {
  async start(settings, minScore) {
    editor.leave();
    if (!editor.session?.image) return notices.show("The image is still on its way to the server. Try again in a moment.");
    try {
      await automaticMasks.run(api, editor.session.image, settings, minScore);
    } catch (error) {
      return notices.error(error.message);
    }
    if (automaticMasks.progress && !automaticMasks.found.length) {
      automaticMasks.clear();
      notices.error("No mask was stable enough. Lower the least stability, or choose more clicks.");
    }
  },
  keep,
});

stage.scene = () => ({
  items: editor.objects.items,
  selected: editor.objects.selected,
  preview: editor.preview,
  layer: automaticMasks.layer,
  lit: automaticMasks.progress && pointing.lit,
  cursor: pointing.cursor,
  hand: pointing.drawHand,
});

viewport.addEventListener("change", () => workspace.picture && status.zoom(viewport.scale));
automaticMasks.addEventListener("change", () => {
  stage.draw("overlay");
  showNext();
});
editor.sharpen = async (image, prompt, extent) => {
  const { picture } = workspace;
  return picture && sharpening.segment(picture, image, prompt, extent, viewport.seen);
};
editor.addEventListener("answer", ({ detail }) => status.mask(detail, local));
editor.addEventListener("error", ({ detail }) => notices.error(detail.message));
editor.addEventListener("change", () => {
  stage.draw("overlay");
  panel.show(editor.objects, isAway());
  showWorking();
  showNext();
  labelBar.show(editor.objects.selected);
  for (const button of all("[data-export]")) button.disabled = !share.canDownload(button.dataset.export);
  for (const button of all("[data-copy]")) button.disabled = !share.canCopy;
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

const tools = new Tools(all("[data-tool]"), (name) => {
  pointing.choose(name);
  showNext();
  $("brush").hidden = !["brush", "eraser"].includes(name);
});
$("brush-size").oninput = ({ target }) => pointing.hand.resize(Number(target.value));

function hideOrShow() {
  const visible = !editor.objects.items.some((item) => item.visible && item.mask);
  for (const item of editor.objects.items) item.visible = visible;
  editor.objects.changed();
}

const withPicture = (action) => () => workspace.picture && action();
const withSession = (action) => () => editor.session && action();
const actions = {
  open: () => $("file").click(),
  help: () => $("help").showModal(),
  fit: withPicture(() => viewport.fit()),
  actual: withPicture(() => viewport.zoom(1 / viewport.scale)),
  zoomIn: withPicture(() => view.zoomIn()),
  zoomOut: withPicture(() => view.zoomOut()),
  include: () => tools.choose("include"),
  exclude: () => tools.choose("exclude"),
  box: () => tools.choose("box"),
  brush: () => tools.choose("brush"),
  eraser: () => tools.choose("eraser"),
  vertices: () => tools.choose("vertices"),
  imageBefore: () => workspace.step(-1),
  imageAfter: () => workspace.step(1),
  begin: withSession(() => select(() => editor.objects.begin())),
  before: withSession(() => select(() => editor.objects.step(-1))),
  next: withSession(() => select(() => editor.objects.step(1))),
  otherMask: withSession(() => editor.chooseCandidate()),
  rename: withSession(() => panel.rename(editor.objects.selected)),
  delete: withSession(() => editor.delete(editor.objects.selected)),
  hide: withSession(hideOrShow),
  undo: () => editor.timeline.undo(),
  redo: () => editor.timeline.redo(),
  everything: withSession(() => search.toggle()),
  cancel: () => pointing.gestures.cancel() || search.cancel() || editor.leave(),
  copyPlace: () => pointing.place && share.copy(pointing.place.join(", "), `position ${pointing.place.join(", ")}`),
  save: withPicture(() => share.download("mask", workspace.picture)),
  editLabels: withSession(() => labelBar.edit()),
};
for (let number = 1; number <= 9; number++) {
  actions[`label${number}`] = withSession(() => labelBar.press(number));
}
shortcuts.listen(actions);
shortcuts.describe($("shortcuts"));

for (const [id, action] of Object.entries({
  open: actions.open,
  choose: actions.open,
  sample: addSample,
  "choose-folder": () => $("folder").click(),
  kept: () => manageImages(library, workspace, local),
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
for (const button of all("[data-export]")) button.onclick = () => share.download(button.dataset.export, workspace.picture, stage.opacity);
for (const button of all("[data-copy]")) button.onclick = () => share.copyPrompt(button.dataset.copy, workspace.picture);
dropped.listen([$("file"), $("folder")], add);
addEventListener("paste", (event) => {
  if (!event.clipboardData?.files.length) return;
  event.preventDefault();
  dropped.filesOf(event.clipboardData).then(add);
});

tools.choose("include");
showImages();
const choice = new ModelChoice({
  chosen(model) {
    guide.model(model);
    search.setRough(Boolean(model.note));
    workspace.use(choice.name);
  },
});
const listed = api
  .models()
  .then(({ models = [] }) => models.length && choice.show(models))
  .catch((error) => notices.error(error.message));
if (choice.isKept) await listed; // so that the image is not opened with another model first
workspace.resume();
