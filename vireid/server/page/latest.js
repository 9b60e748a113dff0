// Requests of which only the newest counts: it ends the one before, and an answer that comes late is dropped.

export class Latest {
  #running = null; // the AbortController of the work that was started last
  #changed;

  /** `changed(running)` is called when work begins and when the last one that was started has ended. */
  constructor(changed = (/** @type {boolean} */ _running) => {}) {
    this.#changed = changed;
  }

  /** What `work(signal)` resolves to; an AbortError where newer work began meanwhile, or stop() was called. */
  async run(work) {
    this.stop();
    const mine = (this.#running = new AbortController());
    this.#changed(true);
    try {
      const result = await work(mine.signal);
      mine.signal.throwIfAborted();
      return result;
    } finally {
      if (this.#running === mine) {
        this.#running = null;
        this.#changed(false);
      }
    }
  }

  stop() {
    this.#running?.abort();
  }
}
