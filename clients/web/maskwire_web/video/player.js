// Shows frames of a clip, one or one after another.

/** Fires "frame" with detail {frame, bitmap} when another frame is to be shown, and "state" when it plays or stops. */
export class Player extends EventTarget {
  constructor() {
    super();
    this.clip = null;
    this.frame = 0;
    this.isPlaying = false;
  }

  open(clip) {
    this.pause();
    this.clip = clip;
    return this.seek(0);
  }

  /** Shows a frame, unless another one is asked for before it is decoded. */
  async seek(frame) {
    const { clip } = this;
    if (!clip) return;
    this.frame = Math.min(clip.length - 1, Math.max(0, frame));
    const wanted = this.frame;
    const bitmap = await clip.bitmap(wanted);
    if (clip !== this.clip || wanted !== this.frame) return;
    this.dispatchEvent(new CustomEvent("frame", { detail: { frame: wanted, bitmap } }));
  }

  step(by) {
    this.pause();
    return this.seek(this.frame + by);
  }

  toggle() {
    if (this.isPlaying) this.pause();
    else this._play();
  }

  pause() {
    if (!this.isPlaying) return;
    this.isPlaying = false;
    this.dispatchEvent(new Event("state"));
  }

  /** Plays to the end, from the beginning if it is there. Frames are left out if decoding them is too slow. */
  async _play() {
    const { clip } = this;
    if (!clip) return;
    this.isPlaying = true;
    this.dispatchEvent(new Event("state"));
    const first = this.frame >= clip.length - 1 ? 0 : this.frame;
    const started = performance.now();
    await this.seek(first);
    while (this.isPlaying && clip === this.clip && this.frame < clip.length - 1) {
      const seconds = (performance.now() - started) / 1000 + clip.frames[first].time_s;
      let due = this.frame;
      while (due < clip.length - 1 && clip.frames[due + 1].time_s <= seconds) due++;
      if (due > this.frame) await this.seek(due);
      for (let ahead = 1; ahead <= 4 && this.frame + ahead < clip.length; ahead++) clip.bitmap(this.frame + ahead);
      await new Promise((next) => requestAnimationFrame(next));
    }
    if (clip === this.clip) this.pause();
  }
}
