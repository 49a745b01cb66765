// Prompts as the graphs take them, and what is made of what they give: what maskwire_decoder/prompts/encoding.py does.

const BEST = 4; // of the masks that graphs compute: the candidate with the highest predicted IoU
const MOST_FOLDED = 10; // points above which the graph "plain" costs less
const CLAMP = 32;
const [PADDING, BOX_MIN, BOX_MAX] = [-1, 2, 3];

/**
 * Encodes a prompt.
 *
 * @param config of the decoder's bundle
 * @param prompt {points: [[x, y], ...], labels: [1, ...], box: [x_min, y_min, x_max, y_max] or null, mask: Float32Array of
 *   S x S logits or null, multimask: boolean}, in pixels of the image
 * @param size {width, height} of the image in pixels
 * @param every whether all candidates are wanted, or the best; a prompt with {candidate: 1 to 3} gives that one alone
 * @returns {graph, points, labels, masks, mask, multimask}: the name of the graph and its inputs
 */
export function encodePrompt(config, { points = [], labels = [], box = null, mask = null, multimask = true, candidate = 0 }, size, every) {
  const corners = box ? [[box[0], box[1], BOX_MIN], [box[2], box[3], BOX_MAX]] : [];
  const clicks = points.map(([x, y], index) => [x, y, labels[index] ?? 1]);
  const given = [...corners, ...clicks];
  if (!given.length && !mask) given.push([0, 0, PADDING]);
  const all = given.length ? [...given, [0, 0, PADDING]] : []; // a mask alone has no points, not even padding
  const scaled = (value, length) => Math.fround(Math.fround(Math.fround(value) / length) * config.image_size);
  return {
    graph: all.length > MOST_FOLDED ? "plain" : mask ? "refine" : "click",
    points: Float32Array.from(all.flatMap(([x, y]) => [scaled(x, size.width), scaled(y, size.height)])),
    labels: BigInt64Array.from(all.map(([, , label]) => BigInt(label))),
    masks: multimask ? (every && !candidate ? [1, 2, 3] : [candidate || BEST]) : config.dynamic_multimask ? [0, BEST] : [0],
    mask,
    multimask,
  };
}

/**
 * Makes the prediction of what a graph gave.
 *
 * @param logits Float32Array, as many masks of S x S as were wanted
 * @param iou Float32Array, of the single mask and the three candidates
 * @returns [{logits, score}, ...]
 */
export function select(config, encoded, logits, iou) {
  const area = config.mask_size ** 2;
  const masks = encoded.masks.map((which, index) => ({
    logits: logits.subarray(index * area, (index + 1) * area),
    score: which === BEST ? Math.max(iou[1], iou[2], iou[3]) : iou[which],
  }));
  if (encoded.multimask || masks.length === 1) return masks;
  return stability(masks[0].logits, config.stability_delta) >= config.stability_threshold ? [masks[0]] : [masks[1]];
}

function stability(logits, delta) {
  const [above, below] = [Math.fround(delta), Math.fround(-delta)];
  let inner = 0;
  let outer = 0;
  for (const value of logits) {
    if (value > above) inner++;
    if (value > below) outer++;
  }
  return outer ? Math.fround(inner / outer) : 1;
}

/** The mask with the highest score. */
export function best(masks) {
  return masks.reduce((one, other) => (other.score > one.score ? other : one));
}

/** Logits as they are fed back: within -32..32. */
export function clamp(logits) {
  return logits.map((value) => Math.min(CLAMP, Math.max(-CLAMP, value)));
}

/**
 * The prompts that an object's steps lead to, each with the key of the steps so far: what maskwire_decoder/prompts/steps.py
 * does.
 *
 * @param steps as in the Step message, in the short forms of HTTP: {add_point: [x, y] or {x_px, y_px, label}},
 *   {remove_point: index}, {set_box: [...]}, {clear: {}}, each with refine, multimask and candidate if given
 * @returns [{points, labels, box, multimask, refine, key}, ...]; refine: the mask of the one before is fed back
 */
export function promptsOf(steps) {
  let shape = { clicks: [], box: null };
  let key = "";
  return steps.map((step) => {
    const wasEmpty = isEmpty(shape);
    const takesAway = step.remove_point !== undefined || (step.set_box !== undefined && shape.box !== null);
    shape = after(shape, step);
    const refine = !wasEmpty && !isEmpty(shape) && (step.refine ?? !takesAway);
    const multimask = step.multimask ?? (shape.clicks.length === 1 && !shape.box && !refine);
    const { candidate = 0 } = step;
    key = isEmpty(shape) ? "" : `${key}${JSON.stringify([step, refine, multimask])}`;
    return { points: shape.clicks.map(([x, y]) => [x, y]), labels: shape.clicks.map(([, , label]) => label), box: shape.box, multimask, candidate, refine, key };
  });
}

const isEmpty = ({ clicks, box }) => !clicks.length && !box;

function after({ clicks, box }, step) {
  if (step.add_point) return { clicks: [...clicks, click(step.add_point)], box };
  if (step.set_box) return { clicks, box: corners(step.set_box) };
  if (step.remove_point !== undefined) return { clicks: clicks.filter((_, index) => index !== step.remove_point), box };
  if (step.clear) return { clicks: [], box: null };
  throw new Error("a step is one of add_point, remove_point, set_box and clear");
}

const click = (point) => (Array.isArray(point) ? [...point, 1] : [point.x_px ?? 0, point.y_px ?? 0, point.label ?? 1]);
const corners = (box) => (Array.isArray(box) ? box : [box.x_min_px ?? 0, box.y_min_px ?? 0, box.x_max_px ?? 0, box.y_max_px ?? 0]);
