// Export: downloads, and prompts as code in the clipboard.

import * as files from "./export.js";
import * as snippets from "./snippets.js";

const ONE = { mask: files.maskPng, cutout: files.cutoutPng };
const ALL = { coco: files.coco, polygons: files.polygons };
const NO_MASK = "There is no mask yet. Click an object in the image first.";
const NONE_SELECTED = "The selected object has no mask yet. Click it in the image first.";

export class Share {
  constructor(editor, notices, base) {
    Object.assign(this, { editor, notices, base });
  }

  /** Saves the selected object ("mask", "cutout") or all of them ("coco", "polygons") to a file. */
  async download(kind, picture) {
    const { selected, masked } = this.editor.objects;
    try {
      if (!masked.length) throw new Error(NO_MASK);
      if (kind in ONE && !selected.mask) throw new Error(NONE_SELECTED);
      files.save(await (kind in ONE ? ONE[kind](selected, picture) : ALL[kind](masked, picture)));
    } catch (error) {
      this.notices.error(error.message);
    }
  }

  /** Copies the selected object's prompt as "sdk", "curl" or "json". */
  copyPrompt(kind, picture) {
    const { selected } = this.editor.objects;
    if (!selected.mask) return this.notices.error(NONE_SELECTED);
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
