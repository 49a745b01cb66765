// Code that segments an object.

const python = (value) => (typeof value === "string" ? JSON.stringify(value) : String(value));
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`; // for a shell
const corners = (box) => ["x_min_px", "y_min_px", "x_max_px", "y_max_px"].map((key) => round(box[key] ?? 0));
const round = (value) => Math.round(value * 1000) / 1000; // the wire has single precision
const label = (point) => (point.label === 0 ? 0 : 1);

function sdkStep(step) {
  if (step.add_point) {
    const { x_px, y_px } = step.add_point;
    const more = `${label(step.add_point) ? "" : ", positive=False"}${step.candidate ? `, candidate=${step.candidate}` : ""}`;
    return `s.click(${round(x_px)}, ${round(y_px)}${more})`;
  }
  if (step.set_box) return `s.box(${corners(step.set_box).join(", ")})`;
  if (step.remove_point !== undefined) return `s.remove_point(${step.remove_point})`;
  return "s.clear()";
}

/** Whether there is code for an object: not for one that was made by hand alone. */
export const hasCode = (item) => Boolean(item.mask && (item.generated || item.history.prompts.length));

const byHand = (item) => (item.history.edits.length ? ["# What was changed by hand is not in this mask."] : []);

/** Python code that returns this object's mask. */
export function sdk(item, image) {
  const name = python(image.fileName);
  if (item.generated) {
    const { pointsPerSide, stability, minScore, index } = item.generated;
    return [
      "from maskwire import Client",
      "",
      "with Client() as mw:",
      "    masks = mw.everything(",
      `        ${name}, points_per_side=${pointsPerSide}, pred_iou_thresh=${minScore}, stability_score_thresh=${stability}`,
      "    )",
      `    mask = masks[${index}]`,
      ...byHand(item),
      "",
    ].join("\n");
  }
  const calls = item.history.prompts.map(sdkStep);
  calls[calls.length - 1] = `result = ${calls[calls.length - 1]}`;
  return [
    "from maskwire import Client",
    "",
    `with Client() as mw, mw.session(${name}) as s:`,
    ...calls.map((call) => `    ${call}`),
    ...byHand(item),
    "result.mask, result.score, result.rle",
    "",
  ].join("\n");
}

/** SegmentRequest as JSON. */
function request(item) {
  if (item.history.candidate) return { prompts: [{ steps: item.history.prompts }] }; // only steps name a candidate
  const points = item.generated ? [item.generated.point] : item.prompt.points;
  const { box } = item.prompt;
  const prompt = { points: points.map((point) => ({ x_px: round(point.x_px ?? 0), y_px: round(point.y_px ?? 0), label: label(point) })) };
  if (box) prompt.box = Object.fromEntries(["x_min_px", "y_min_px", "x_max_px", "y_max_px"].map((key) => [key, round(box[key] ?? 0)]));
  return { prompts: [prompt], output: { multimask: points.length === 1 && !box } };
}

export function json(item) {
  return JSON.stringify(request(item), null, 2) + "\n";
}

/** Two calls of the HTTP interface. All clicks are decoded at once, not one after another. */
export function curl(item, image, base) {
  const address = new URL("images", base).href;
  const url = `${address}/${encodeURIComponent(image.fileName)}`;
  return [
    `curl -fsS --data-binary @${quoted(image.fileName)} ${quoted(`${address}?image_id=${encodeURIComponent(image.fileName)}`)}`,
    `curl -fsS ${quoted(`${url}/segment`)} -H 'Content-Type: application/json' \\`,
    `  -d ${quoted(JSON.stringify(request(item)))}`,
    "",
  ].join("\n");
}
