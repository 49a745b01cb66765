// The dialog about images that are stored in this browser.

import { confirmed } from "./dialogs.js";

const $ = (id) => document.getElementById(id);

function megabytes(bytes) {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

/** Shows how much is stored and where masks are decoded, and removes the current image or all of them. */
export async function manageImages(library, workspace, local) {
  const count = library.images.length;
  $("kept-text").textContent = `${count === 1 ? "1 image" : `${count} images`}, ${megabytes(library.bytes)}.`;
  $("remove-image").hidden = !workspace.image;
  $("decode-here").checked = local.isWanted;
  $("decode-here").onchange = () => local.choose($("decode-here").checked);
  $("decoder-weights").value = local.weights;
  $("decoder-weights").onchange = () => local.chooseWeights($("decoder-weights").value);
  offerGpu(local);
  $("kept-images").returnValue = "";
  $("kept-images").showModal();
  await new Promise((resolve) => $("kept-images").addEventListener("close", resolve, { once: true }));
  const images = { image: [workspace.image], all: [...library.images] }[$("kept-images").returnValue];
  if (images && (await isMeant(images))) await workspace.remove(images);
}

/**
 * Shows the choice of what decodes, where browser and gateway have WebGPU, or where it was chosen and has failed since; and
 * what does not work of what was chosen.
 */
async function offerGpu(local) {
  const [row, choice] = [$("decoder-backend-row"), $("decoder-backend")];
  row.hidden = true;
  $("decoder-troubles").textContent = local.troubles;
  const { findGpu } = await import("./decoder/gpu.js"); // only here, so that nobody else downloads it
  const { lack, isSoftware } = await findGpu();
  row.hidden = Boolean(lack) && local.chosenBackend === "wasm";
  choice.value = local.chosenBackend;
  choice.onchange = () => {
    local.chooseBackend(choice.value);
    $("decoder-troubles").textContent = "";
  };
  $("decoder-software").hidden = !isSoftware;
}

async function isMeant(images) {
  const count = images.reduce((sum, image) => sum + image.count, 0);
  const what = images.length === 1 ? images[0].name : `all ${images.length} images`;
  const objects = count === 1 ? "its object" : `${count} objects`;
  return !count || confirmed(`Remove ${what}?`, `This deletes ${objects} as well, and cannot be undone.`, "Remove");
}
