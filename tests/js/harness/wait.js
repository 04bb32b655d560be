// Every wait has a deadline, and says what it waited for.

/** Longer than anything that is to come may take on a machine that runs all tests at once. */
export const PATIENCE = 60_000;

export function within(ms, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms in vain for ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What arrives, in order, and a way to wait until it is enough. */
export class Collected {
  #waiting = new Set();

  constructor() {
    this.all = [];
  }

  push = (item) => {
    this.all.push(item);
    for (const check of this.#waiting) check();
  };

  /** Resolves with all that arrived as soon as `enough(all)` holds. */
  until(enough, what, ms = PATIENCE) {
    const arrived = new Promise((resolve) => {
      const check = () => {
        if (!enough(this.all)) return;
        this.#waiting.delete(check);
        resolve(this.all);
      };
      this.#waiting.add(check);
      check();
    });
    return within(ms, arrived, what).catch((error) => {
      throw new Error(`${error.message}; this arrived: ${JSON.stringify(this.all.slice(-5))} (${this.all.length})`);
    });
  }

  count(n, what, ms) {
    return this.until((all) => all.length >= n, `${n} × ${what}`, ms);
  }
}
