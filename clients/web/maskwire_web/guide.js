// Help texts: what the page is for, how good its model is, and what to do next.

const $ = (id) => document.getElementById(id);
const HIDDEN = "maskwire.about.hidden";
const isTouch = matchMedia("(pointer: coarse)");

const NEXT = {
  mouse: {
    first: "Click an object to get its mask, or drag a box around it.",
    more: "Click what is missing. Shift-click or right-click what does not belong to it. N begins another object.",
    everything: "Click a mask to keep it as an object.",
    brush: "Drag to paint what the mask lacks.",
    eraser: "Drag to rub out what is too much.",
    vertices: "Drag a vertex, or the outline between two. Alt-click removes a vertex.",
  },
  touch: {
    first: "Tap an object to get its mask. Two fingers zoom and move the image.",
    more: "Tap what is missing. With Exclude, tap what does not belong to it. New begins another object.",
    everything: "Tap a mask to keep it as an object.",
    brush: "Drag to paint what the mask lacks. Two fingers move the image.",
    eraser: "Drag to rub out what is too much. Two fingers move the image.",
    vertices: "Drag a vertex, or the outline between two.",
  },
};

export class Guide {
  constructor() {
    const follow = () => document.body.classList.toggle("touch", isTouch.matches);
    isTouch.addEventListener("change", follow);
    follow();
    $("about-hide").onclick = () => this._hide(true);
    $("model").onclick = () => this._hide(false);
    this._hide(Boolean(localStorage.getItem(HIDDEN)));
  }

  /** @param model a ModelInfo; one with a note is for demonstration */
  model({ name, note, device }) {
    $("model").hidden = !note && !$("models").hidden; // a list tells the name already
    $("model").textContent = note ? `${name} model: rough masks` : name;
    $("model").title = [note, device].filter(Boolean).join(" · ");
    $("model").disabled = !note;
    $("about-demo").hidden = !note;
    $("about-model").textContent = name;
  }

  /** @param step "first", "more", "everything" or a tool for changes by hand; null without an image */
  next(step) {
    $("next").hidden = !step;
    $("next").textContent = step ? NEXT[isTouch.matches ? "touch" : "mouse"][step] : "";
  }

  _hide(hidden) {
    $("about").hidden = hidden;
    if (hidden) localStorage.setItem(HIDDEN, "1");
    else localStorage.removeItem(HIDDEN);
  }
}
