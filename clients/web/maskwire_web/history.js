// An object's history: the list of steps that the page owns and sends with each request.

/**
 * Immutable. Steps are {add_point | remove_point | set_box | clear: ...}, as in the Step message, and {edit: ...}: a change of
 * the mask by hand, which the server does not know; see `edited` in drawing.js; and {choose: number}: another candidate of the
 * prompt step before it.
 */
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

  /** Those that the server decodes. */
  get prompts() {
    return this.steps.reduce((prompts, step) => {
      if (step.edit) return prompts;
      return step.choose ? [...prompts.slice(0, -1), { ...prompts.at(-1), candidate: step.choose }] : [...prompts, step];
    }, []);
  }

  /** Whether the model has several candidates for the last prompt step: a lone click. */
  get hasCandidates() {
    const { points, box } = this.prompt;
    return this.prompts.length === 1 && points.length === 1 && !box;
  }

  /** The candidate that was chosen, 1 to 3; 0 for the best. */
  get candidate() {
    return this.prompts.at(-1)?.candidate ?? 0;
  }

  /** The changes by hand, which come on top of the mask that the server gives. */
  get edits() {
    return this.steps.filter(({ edit }) => edit).map(({ edit }) => edit);
  }

  /** The clicks and the box that the steps add up to: {points, box}. */
  get prompt() {
    return (this._prompt ??= this.steps.reduce(after, { points: [], box: null }));
  }

  /** Whether there is nothing to decode. */
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
  if (step.edit || step.choose) return { points, box };
  if (step.remove_point !== undefined) return { points: points.filter((_, index) => index !== step.remove_point), box };
  return { points: [], box: null };
}
