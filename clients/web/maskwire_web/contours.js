// Outlines of masks along pixel edges. Filled by the even-odd rule they give exactly the mask.

const [RIGHT, DOWN, LEFT, UP] = [0, 1, 2, 3];

/** Unit edges between inside and outside, with the inside to their right: a bit set of directions for each corner. */
function edges(mask) {
  const stride = mask.height + 1;
  const leaving = new Map(); // grid corner -> directions of the edges that leave it
  const add = (x, y, direction) => {
    const key = x * stride + y;
    leaving.set(key, (leaving.get(key) ?? 0) | (1 << direction));
  };
  let before = [];
  for (let x = 0; x <= mask.width; x++) {
    const column = mask.columns[x] ?? [];
    for (let i = 0; i < column.length; i += 2) {
      add(x, column[i], RIGHT);
      add(x + 1, column[i + 1], LEFT);
    }
    // There is an edge between two neighbouring columns where one is inside and the other is not.
    const turns = [...before, ...column].sort((a, b) => a - b);
    for (let i = 0; i + 1 < turns.length; i += 2) {
      const here = column.some((y, k) => k % 2 === 0 && turns[i] >= y && turns[i] < column[k + 1]);
      for (let y = turns[i]; y < turns[i + 1]; y++) here ? add(x, y + 1, UP) : add(x, y, DOWN);
    }
    before = column;
  }
  return { leaving, stride };
}

/**
 * Closed outlines of a mask as [[x, y], ...] in pixels, corners only; outer ones run clockwise, holes the other way.
 * Pixels that touch only at a corner are not connected.
 */
export function outlines(mask) {
  const { leaving, stride } = edges(mask);
  const found = [];
  for (const [start, directions] of leaving) {
    if (!(directions & (1 << RIGHT))) continue; // every outline has an edge to the right
    const line = [];
    let direction = RIGHT;
    let x = Math.floor(start / stride);
    let y = start % stride;
    for (;;) {
      const key = x * stride + y;
      const here = leaving.get(key) ?? 0;
      const next = [(direction + 1) % 4, direction, (direction + 3) % 4].find((d) => here & (1 << d));
      if (line.length && key === start && next === RIGHT) break; // the outline is closed
      if (key !== start || next !== RIGHT) leaving.set(key, here & ~(1 << next));
      if (next !== direction || !line.length) line.push([x, y]);
      direction = next;
      if (next === RIGHT) x++;
      else if (next === LEFT) x--;
      else if (next === DOWN) y++;
      else y--;
    }
    leaving.set(start, leaving.get(start) & ~(1 << RIGHT));
    found.push(line);
  }
  return found;
}

/** Twice the signed area: positive for outer outlines, negative for holes. */
export function signedArea(line) {
  return line.reduce((sum, [x, y], i) => {
    const [nextX, nextY] = line[(i + 1) % line.length];
    return sum + x * nextY - nextX * y;
  }, 0);
}

/** A Path2D of the outlines in image pixels; fill it with "evenodd". */
export function pathOf(lines) {
  const path = new Path2D();
  for (const line of lines) {
    line.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
    path.closePath();
  }
  return path;
}

function distance([x, y], [ax, ay], [bx, by]) {
  const [dx, dy] = [bx - ax, by - ay];
  const length = dx * dx + dy * dy;
  const share = length ? Math.max(0, Math.min(1, ((x - ax) * dx + (y - ay) * dy) / length)) : 0;
  return Math.hypot(x - ax - share * dx, y - ay - share * dy);
}

/** Simplifies an outline by Ramer-Douglas-Peucker; omitted corners are at most `tolerance` pixels away from it. */
export function simplified(line, tolerance) {
  if (line.length < 5) return line;
  const closed = [...line, line[0]];
  let far = 0;
  line.forEach((point, i) => {
    if (distance(point, line[0], line[0]) > distance(line[far], line[0], line[0])) far = i;
  });
  const kept = new Set([0, far]);
  const arcs = [[0, far], [far, line.length]];
  while (arcs.length) {
    const [start, end] = arcs.pop();
    let [middle, most] = [0, tolerance];
    for (let i = start + 1; i < end; i++) {
      const off = distance(closed[i], closed[start], closed[end]);
      if (off > most) [middle, most] = [i, off];
    }
    if (!middle) continue;
    kept.add(middle);
    arcs.push([start, middle], [middle, end]);
  }
  return line.filter((_, i) => kept.has(i));
}
