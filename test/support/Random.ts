/**
 * Chance that can be had again: a test prints its seed, and `SEED=… npm test --
 * <file>` makes the same choices. (mulberry32)
 */
export class Random {
  readonly seed: number
  #state: number

  constructor(seed = Number(process.env["SEED"] ?? Math.floor(Math.random() * 2 ** 31))) {
    this.seed = seed
    this.#state = seed
  }

  /** In [0, 1). */
  next(): number {
    this.#state = this.#state + 0x6d2b79f5 | 0
    let mixed = Math.imul(this.#state ^ this.#state >>> 15, 1 | this.#state)
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }

  /** A whole number from 0 to below `end`. */
  below(end: number): number {
    return Math.floor(this.next() * end)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  of<A>(things: ReadonlyArray<A>): A {
    return things[this.below(things.length)]!
  }

  /** Another source of chance, the same for the same seed, that may be used at its own pace. */
  fork(): Random {
    return new Random(this.below(2 ** 31))
  }
}
