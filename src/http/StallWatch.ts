/**
 * Notices transfers that stand still. One timer for all of them, because a timer
 * per request would cost more than the request: a transfer sets `idleTicks` to 0
 * when it moves, and is told `stalled` once after 0.8 to 1.0 × `stallMs` without.
 */
export interface Stallable {
  idleTicks: number
  /** Links of the watch's list; nobody else touches them. */
  watchedBefore: Stallable | undefined
  watchedAfter: Stallable | undefined
  stalled(): void
}

const ticks = 5

/** A linked list through the transfers themselves: joining and leaving happens on every call with a body. */
export class StallWatch {
  #first: Stallable | undefined = undefined
  readonly #timer: NodeJS.Timeout

  constructor(stallMs: number) {
    this.#timer = setInterval(() => this.#tick(), stallMs / ticks)
    this.#timer.unref()
  }

  /** Adding what is already watched only sets it back. */
  add(item: Stallable): void {
    item.idleTicks = 0
    if (this.#has(item)) return
    item.watchedAfter = this.#first
    if (this.#first !== undefined) this.#first.watchedBefore = item
    this.#first = item
  }

  delete(item: Stallable): void {
    if (!this.#has(item)) return
    const { watchedAfter, watchedBefore } = item
    if (watchedBefore === undefined) this.#first = watchedAfter
    else watchedBefore.watchedAfter = watchedAfter
    if (watchedAfter !== undefined) watchedAfter.watchedBefore = watchedBefore
    item.watchedBefore = undefined
    item.watchedAfter = undefined
  }

  close(): void {
    clearInterval(this.#timer)
    this.#first = undefined
  }

  #has(item: Stallable): boolean {
    return item.watchedBefore !== undefined || this.#first === item
  }

  #tick(): void {
    const stalled: Array<Stallable> = []
    for (let item = this.#first; item !== undefined; item = item.watchedAfter) {
      if (++item.idleTicks >= ticks) stalled.push(item)
    }
    for (const item of stalled) {
      // One that stalls may take others with it.
      if (!this.#has(item)) continue
      this.delete(item)
      item.stalled()
    }
  }
}
