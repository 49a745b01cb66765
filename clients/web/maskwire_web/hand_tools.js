// Changes of the selected object's mask by hand: brush, eraser, and the vertices of its outline.

import { outlines, signedArea, simplified } from "./contours.js";
import { brushed, difference, enclosed } from "./drawing.js";

export const HAND_TOOLS = ["brush", "eraser", "vertices"];

const SIZES = [4, 200]; // of the brush, in CSS pixels across
const REACH = { mouse: 9, pen: 12, touch: 22 }; // of a vertex, in CSS pixels
const COARSE = 2; // CSS pixels by which the outline between vertices may be off, and at least one pixel of the image

export class HandTools {
  /** @param drawn called when something must be redrawn */
  constructor(editor, viewport, drawn) {
    Object.assign(this, { editor, viewport, drawn });
    this.size = 28; // of the brush, in CSS pixels across
    this.place = null; // under the pointer, in pixels of the image
    this._stroke = null; // {points, radius}
    this._moved = null; // {ring, line, index, place}: the vertex that is dragged
  }

  resize(size) {
    this.size = Math.min(SIZES[1], Math.max(SIZES[0], size));
    this.drawn();
  }

  hover(place) {
    this.place = place;
    this.drawn();
  }

  /** @param how {tool, image, pointerType, alternate} */
  start(place, how) {
    this.cancel();
    this.place = place;
    this._how = how;
    if (how.tool === "vertices") this._takeVertex(place);
    else if (how.tool === "brush" || this.editor.objects.selected.mask) this._stroke = { points: [place], radius: this._radius };
    this.drawn();
  }

  move(place) {
    this.place = place;
    if (this._stroke) this._stroke.points.push(place);
    if (this._moved) this._moved.place = place;
    this.drawn();
  }

  /** Makes the change. */
  end() {
    const { image, tool } = this._how ?? {};
    const size = image && [image.height, image.width];
    if (this._stroke) {
      const counts = brushed(this._stroke.points, this._stroke.radius, size);
      this.editor.edit(tool === "brush" ? { size, added: counts } : { size, removed: counts });
    } else if (this._moved?.place) this._reshape(this._moved, size);
    this.cancel();
  }

  cancel() {
    this._stroke = this._moved = this._how = null;
    this.drawn();
  }

  get _radius() {
    return this.size / 2 / this.viewport.scale;
  }

  /** The outlines of the selected mask with as few vertices as this zoom needs. */
  get _rings() {
    const { mask } = this.editor.objects.selected;
    const tolerance = Math.max(1, COARSE / this.viewport.scale);
    if (this._cached?.mask !== mask || this._cached.tolerance !== tolerance) {
      const rings = mask ? outlines(mask).map((line) => simplified(line, tolerance)) : [];
      this._cached = { mask, tolerance, rings: rings.filter((ring) => ring.length > 2) };
    }
    return this._cached.rings;
  }

  /** Takes the vertex that is near, or makes one where the outline is near; with Alt, removes it. */
  _takeVertex(place) {
    const reach = REACH[this._how.pointerType] / this.viewport.scale;
    const near = ([x, y]) => Math.hypot(x - place[0], y - place[1]);
    let best = { far: reach };
    for (const ring of this._rings) {
      ring.forEach((vertex, index) => {
        if (near(vertex) < best.far) best = { far: near(vertex), ring, line: ring, index };
      });
    }
    if (this._how.alternate) {
      if (best.ring?.length > 3) this._moved = { ...best, line: best.ring.toSpliced(best.index, 1), index: -1, place };
      return;
    }
    if (!best.ring) {
      for (const ring of this._rings) {
        ring.forEach((vertex, index) => {
          const point = nearest(place, vertex, ring[(index + 1) % ring.length]);
          if (near(point) < best.far) best = { far: near(point), ring, line: ring.toSpliced(index + 1, 0, point), index: index + 1 };
        });
      }
    }
    if (best.ring) this._moved = { ...best, place: null };
  }

  _reshape({ ring, line, index, place }, size) {
    const [before, after] = [enclosed([ring], size), enclosed([index < 0 ? line : line.with(index, place)], size)];
    const [more, less] = [difference(after, before, size), difference(before, after, size)];
    this.editor.edit(signedArea(ring) > 0 ? { size, added: more, removed: less } : { size, added: less, removed: more });
  }

  /** Draws what is being changed, and where the tool would act; the context has image pixels as coordinates. */
  draw(context, tool, colour) {
    const pixel = 1 / this.viewport.scale;
    context.lineJoin = context.lineCap = "round";
    if (tool === "vertices") this._drawVertices(context, colour, pixel);
    else {
      if (this._stroke) this._drawStroke(context, tool === "brush" ? colour : "#ffffff");
      if (this.place) drawRing(context, this.place, this._radius, tool === "brush" ? colour : "#ffffff", pixel);
    }
    context.lineCap = "butt";
  }

  _drawStroke(context, colour) {
    const { points, radius } = this._stroke;
    context.globalAlpha = 0.5;
    context.strokeStyle = colour;
    context.lineWidth = 2 * radius;
    context.beginPath();
    points.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.lineTo(...points.at(-1));
    context.stroke();
    context.globalAlpha = 1;
  }

  _drawVertices(context, colour, pixel) {
    const { _moved: moved } = this;
    const rings = this._rings.map((ring) => {
      if (ring !== moved?.ring) return ring;
      return moved.index >= 0 && moved.place ? moved.line.with(moved.index, moved.place) : moved.line;
    });
    for (const ring of rings) {
      context.beginPath();
      ring.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.closePath();
      context.strokeStyle = "#fff";
      context.lineWidth = 1.5 * pixel;
      context.stroke();
      for (const vertex of ring) drawRing(context, vertex, 3.5 * pixel, colour, pixel, "#fff");
    }
  }
}

function drawRing(context, [x, y], radius, colour, pixel, fill = null) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  }
  for (const [style, width] of [["rgb(0 0 0 / 55%)", 3], [colour, 1.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width * pixel;
    context.stroke();
  }
}

/** The point of a segment that is nearest to a place. */
function nearest([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const share = Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy || 1)));
  return [ax + share * dx, ay + share * dy];
}
