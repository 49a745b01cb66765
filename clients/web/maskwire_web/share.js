// Export: downloads, and prompts as code in the clipboard.

import * as files from "./export.js";
import * as snippets from "./snippets.js";

const ONE = { mask: files.maskPng, cutout: files.cutoutPng };
const NO_MASK = "There is no mask yet. Click an object in the image first.";
const NONE_SELECTED = "The selected object has no mask yet. Click it in the image first.";

export class Share {
  /** @param workspace has the images @param base address of the HTTP interface */
  constructor(editor, workspace, notices, base) {
    Object.assign(this, { editor, workspace, notices, base });
  }

  /** Whether there is something to save. */
  canDownload(kind) {
    const { selected, masked } = this.editor.objects;
    if (kind === "zip") return masked.length > 0 || this.workspace.library.images.some(({ count }) => count);
    return Boolean(kind in ONE ? selected.mask : masked.length);
  }

  /**
   * Saves to a file: the selected object ("mask", "cutout"), all of the image ("overlay", "coco", "polygons", "yolo",
   * "labelme"), or those of all images ("zip").
   *
   * @param opacity of masks in "overlay"
   */
  async download(kind, picture, opacity) {
    const { selected, masked } = this.editor.objects;
    try {
      if (!this.canDownload(kind)) throw new Error(kind in ONE && masked.length ? NONE_SELECTED : NO_MASK);
      files.save(await this._made(kind, picture, opacity));
    } catch (error) {
      this.notices.error(error.message);
    }
  }

  async _made(kind, picture, opacity) {
    const { selected, masked } = this.editor.objects;
    if (kind in ONE) return ONE[kind](selected, picture);
    if (kind === "overlay") return files.overlayPng(masked, picture, opacity);
    if (kind === "zip") return files.archive(await this.workspace.annotated());
    return files.annotationFile(kind, masked, picture);
  }

  /** Whether the selected object has prompts to copy. */
  get canCopy() {
    return snippets.hasCode(this.editor.objects.selected);
  }

  /** Copies the selected object's prompt as "sdk", "curl" or "json". */
  copyPrompt(kind, picture) {
    const { selected } = this.editor.objects;
    if (!this.canCopy) return this.notices.error(NONE_SELECTED);
    if (kind === "curl") return this.copy(snippets.curl(selected, picture, this.base), "curl commands");
    if (kind === "json") return this.copy(snippets.json(selected), "the prompt as JSON");
    return this.copy(snippets.sdk(selected, picture), "Python code");
  }

  async copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // The clipboard API exists only in secure contexts: HTTPS or localhost.
      const area = Object.assign(document.createElement("textarea"), { value: text, className: "spoken" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    this.notices.show(`Copied ${what}`);
    this.notices.say(`Copied ${what}`);
  }
}
