/** What will happen, earliest first: a binary heap in flat arrays, because there are millions. */
export class EventQueue {
  /** Of the event that was taken last. */
  kind = 0
  a = 0
  b = 0
  value = 0
  #size = 0
  #times = new Float64Array(1_024)
  #values = new Float64Array(1_024)
  #data = new Int32Array(3 * 1_024)

  /** Infinity when nothing will. */
  nextAt(): number {
    return this.#size === 0 ? Infinity : this.#times[0]!
  }

  add(at: number, kind: number, a: number, b = 0, value = 0): void {
    if (this.#size === this.#times.length) this.#grow()
    let hole = this.#size++
    while (hole > 0) {
      const parent = (hole - 1) >> 1
      if (this.#times[parent]! <= at) break
      this.#move(parent, hole)
      hole = parent
    }
    this.#put(hole, at, kind, a, b, value)
  }

  /** Its parts are in the fields above. */
  take(): void {
    const times = this.#times
    this.kind = this.#data[0]!
    this.a = this.#data[1]!
    this.b = this.#data[2]!
    this.value = this.#values[0]!
    const last = --this.#size
    const at = times[last]!
    let hole = 0
    for (;;) {
      let child = 2 * hole + 1
      if (child >= last) break
      if (child + 1 < last && times[child + 1]! < times[child]!) child++
      if (times[child]! >= at) break
      this.#move(child, hole)
      hole = child
    }
    this.#move(last, hole)
  }

  #put(hole: number, at: number, kind: number, a: number, b: number, value: number): void {
    this.#times[hole] = at
    this.#values[hole] = value
    this.#data[3 * hole] = kind
    this.#data[3 * hole + 1] = a
    this.#data[3 * hole + 2] = b
  }

  #move(from: number, to: number): void {
    this.#times[to] = this.#times[from]!
    this.#values[to] = this.#values[from]!
    // By hand: copyWithin costs more than what it moves.
    const data = this.#data
    data[3 * to] = data[3 * from]!
    data[3 * to + 1] = data[3 * from + 1]!
    data[3 * to + 2] = data[3 * from + 2]!
  }

  #grow(): void {
    const [times, values, data] = [this.#times, this.#values, this.#data]
    this.#times = new Float64Array(2 * times.length)
    this.#values = new Float64Array(2 * values.length)
    this.#data = new Int32Array(2 * data.length)
    this.#times.set(times)
    this.#values.set(values)
    this.#data.set(data)
  }
}
