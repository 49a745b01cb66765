// An object's history: the list of steps that the page owns and sends with each request.

/** Immutable. Steps are {add_point | remove_point | set_box | clear: ...}, as in the Step message. */
export class History {
  /**
   * @param made all steps, in order
   * @param undone how many of them, from the last, were undone
   */
  constructor(made = [], undone = 0) {
    Object.assign(this, { made, undone });
  }

  /** The steps that count. */
  get steps() {
    return this.made.slice(0, this.made.length - this.undone);
  }

  /** The clicks and the box that the steps add up to: {points, box}. */
  get prompt() {
    return (this._prompt ??= this.steps.reduce(after, { points: [], box: null }));
  }

  get isEmpty() {
    return !this.prompt.points.length && !this.prompt.box;
  }

  add(step) {
    return new History([...this.steps, step]);
  }

  undo() {
    return new History(this.made, Math.min(this.made.length, this.undone + 1));
  }

  redo() {
    return new History(this.made, Math.max(0, this.undone - 1));
  }
}

function after({ points, box }, step) {
  if (step.add_point) return { points: [...points, step.add_point], box };
  if (step.set_box) return { points, box: step.set_box };
  if (step.remove_point !== undefined) return { points: points.filter((_, index) => index !== step.remove_point), box };
  return { points: [], box: null };
}
