// Opens files as a clip: asks which frames of a film to take, and how a model without a memory is to follow.

import { UnusableClip, closeFilm, framesOf, kindOf, openFilm, takeAnimation, takeFilm, takePictures } from "./reading.js";

const $ = (id) => document.getElementById(id);
const MOST_FRAMES = 20_000; // as the tracker's --max-clip-frames
const LONG_S = 20; // longer films are taken in part, unless one asks for all

/**
 * Resolves to a Clip, or to null if it was given up.
 *
 * @param progress called with the fraction that is read; returns false to give up
 */
export async function readClip(files, progress) {
  switch (kindOf(files)) {
    case "film":
      return fromFilm(files[0], progress);
    case "animation":
      return (await takeAnimation(files[0], progress)) ?? takePictures(files, progress);
    case "pictures":
      return takePictures(files, progress);
    default:
      throw new UnusableClip(files.length ? `${files[0].name} is no film. Open a film, a GIF, or several pictures of one size.` : "There is no file.");
  }
}

async function fromFilm(file, progress) {
  const video = await openFilm(file);
  try {
    const selection = await asked(file.name, video);
    return selection && (await takeFilm(video, file.name, selection, progress));
  } finally {
    closeFilm(video);
  }
}

/** Asks which frames of a film to take. */
async function asked(name, video) {
  const { duration } = video;
  const fields = ["take-rate", "take-start", "take-end", "take-side"].map($);
  $("take-title").textContent = name;
  $("take-text").textContent = `${duration.toFixed(1)} s, ${video.videoWidth} × ${video.videoHeight}`;
  $("take-start").value = 0;
  for (const id of ["take-start", "take-end"]) $(id).max = duration.toFixed(2);
  $("take-end").value = Math.min(duration, LONG_S).toFixed(2);
  const selection = () => {
    const [rate, start, end, side] = fields.map(({ value }) => Number(value));
    return { rate, start, end: Math.min(end, duration), side };
  };
  const describe = () => {
    const { rate, start, end } = selection();
    const count = rate > 0 && end > start ? framesOf(start, end, rate) : 0;
    $("take-count").textContent = count ? `${count.toLocaleString()} frames` : "";
    $("take-ok").disabled = !count || count > MOST_FRAMES || fields.some((field) => !field.checkValidity());
  };
  fields.forEach((field) => (field.oninput = describe));
  describe();
  const dialog = $("take");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "ok" ? selection() : null;
}

$("take-cancel").onclick = () => $("take").close("");

/** Asks for leave to follow without a memory. Resolves to whether it was given. */
export async function askHandOver({ name }) {
  $("hand-over-model").textContent = name;
  const dialog = $("hand-over");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  return dialog.returnValue === "ok";
}

$("hand-over-cancel").onclick = () => $("hand-over").close("");
