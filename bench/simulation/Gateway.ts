/**
 * Many nodes as one gateway, simulated event by event.
 *
 *     call ─▶ node ─┬─ owns the account, or has a lease ─▶ its one core ─┬─ free: answered
 *                   │                                                    └─ paid: next batch ─▶ PostgreSQL ─▶ answered
 *                   └─ neither ─▶ its core (pass on) ─▶ wire ─▶ the owner's core ─▶ as above
 *
 * Each node is one core that does its work in order of arrival, PostgreSQL so
 * many that share one queue. A node sends a batch when its last one is durable,
 * with all calls that came meanwhile. Leases follow the program's rules: looked
 * after every `tickS`; asked for from `callsMin` calls a second on; good for 1 s
 * and renewed in its second half; given back after a second without calls.
 *
 * Left out: the agents' time, retries, budgets, full windows, accounts that run
 * dry, locks inside PostgreSQL, and memory. Accounts are in memory already.
 */
import type { Random } from "../../test/support/Random.ts"
import type { Costs } from "./Costs.ts"
import { EventQueue } from "./EventQueue.ts"
import { Latencies } from "./Latencies.ts"
import { placeKeys } from "./Placement.ts"
import type { Workload } from "./Workload.ts"

/** What is not measured, and what the program's limits say, in seconds. */
export interface Surroundings {
  /** Between two machines of one data centre, there and back. */
  readonly wireS: number
  /** From a batch's end to its being on disk. */
  readonly syncS: number
  readonly databaseCores: number
  readonly leaseTrustS: number
  readonly leaseIdleS: number
  readonly leaseTickS: number
  readonly leaseCallsMin: number
}

export interface Outcome {
  readonly calls: number
  /** µs a call, all nodes summed. */
  readonly cpuPerCall: number
  readonly localShare: number
  readonly leasedShare: number
  readonly passedOnShare: number
  readonly asksPerCall: number
  /** Cores busy; above `databaseCores` it is overloaded. */
  readonly databaseCores: number
  readonly callsPerBatch: number
  /** Of the node with most to do, and of all: shares of its core. */
  readonly busiestNode: number
  readonly meanNode: number
  readonly p99FreeMs: number
  readonly p99PaidMs: number
}

const happening = { passed: 0, ask: 1, grant: 2, done: 3, durable: 4, tick: 5, flush: 6 } as const
/** Usage rows of free calls are written so often. */
const flushS = 0.25
const asksAtOnce = 64
/** A grant holds the calls of so many seconds. */
const horizonS = 1.5

export class Gateway {
  readonly #nodes: number
  readonly #work: Workload
  readonly #costs: Costs
  readonly #around: Surroundings
  readonly #random: Random
  readonly #queue = new EventQueue()
  readonly #owners: Int32Array
  /** When each node's core is free again, and what it did while measured. */
  readonly #freeAt: Float64Array
  readonly #busy: Float64Array
  readonly #databaseFreeAt: Float64Array
  #databaseBusy = 0
  /** Of each node and key. */
  readonly #calls: Uint16Array
  readonly #rate: Float32Array
  readonly #until: Float32Array
  readonly #left: Int32Array
  readonly #usedAt: Float32Array
  readonly #isAsking: Uint8Array
  readonly #isListed: Uint8Array
  /** Asks of each node that are under way, and key and rate of those that wait. */
  readonly #asking: Int32Array
  readonly #due: Array<Array<number>>
  /** Keys that each node looks after. */
  readonly #listed: Array<Array<number>>
  /** When the calls came that wait for the next batch, and that are in the one under way. */
  readonly #waiting: Array<Array<number>>
  readonly #sent: Array<Array<number>>
  readonly #freeRows: Int32Array
  #nowS = 0
  #warmS = 0
  readonly #counts = { calls: 0, local: 0, leased: 0, passedOn: 0, asks: 0, batches: 0, batched: 0 }
  readonly #free = new Latencies()
  readonly #paid = new Latencies()

  constructor(nodes: number, work: Workload, costs: Costs, around: Surroundings, random: Random) {
    this.#nodes = nodes
    this.#work = work
    this.#costs = costs
    this.#around = around
    this.#random = random
    this.#owners = placeKeys(work.keys, nodes, random)
    this.#freeAt = new Float64Array(nodes)
    this.#busy = new Float64Array(nodes)
    this.#databaseFreeAt = new Float64Array(around.databaseCores)
    const pairs = nodes * work.keys
    this.#calls = new Uint16Array(pairs)
    this.#rate = new Float32Array(pairs)
    this.#until = new Float32Array(pairs)
    this.#left = new Int32Array(pairs)
    this.#usedAt = new Float32Array(pairs)
    this.#isAsking = new Uint8Array(pairs)
    this.#isListed = new Uint8Array(pairs)
    this.#asking = new Int32Array(nodes)
    this.#due = Array.from({ length: nodes }, () => [])
    this.#listed = Array.from({ length: nodes }, () => [])
    this.#waiting = Array.from({ length: nodes }, () => [])
    this.#sent = Array.from({ length: nodes }, () => [])
    this.#freeRows = new Int32Array(nodes)
  }

  /** The first seconds are not counted. */
  run(warmS: number, measuredS: number): Outcome {
    this.#warmS = warmS
    const endS = warmS + measuredS
    for (let node = 0; node < this.#nodes; node++) {
      this.#queue.add(this.#random.next() * this.#around.leaseTickS, happening.tick, node)
      this.#queue.add(this.#random.next() * flushS, happening.flush, node)
    }
    for (let callS = 0; ;) {
      const eventS = this.#queue.nextAt()
      this.#nowS = Math.min(callS, eventS)
      if (this.#nowS >= endS) return this.#outcome(measuredS)
      if (callS <= eventS) {
        this.#call()
        callS += this.#work.gap(callS)
      } else {
        this.#queue.take()
        this.#happens()
      }
    }
  }

  #outcome(seconds: number): Outcome {
    const { calls, local, leased, passedOn, asks, batches, batched } = this.#counts
    const busy = this.#busy.reduce((sum, each) => sum + each, 0)
    const idle = this.#costs.idle / 1e6
    return {
      calls, cpuPerCall: (busy + idle * seconds * this.#nodes) / calls * 1e6, localShare: local / calls, leasedShare: leased / calls, passedOnShare: passedOn / calls,
      asksPerCall: asks / calls, databaseCores: this.#databaseBusy / seconds, callsPerBatch: batched / Math.max(1, batches),
      busiestNode: Math.max(...this.#busy) / seconds + idle, meanNode: busy / this.#nodes / seconds + idle,
      p99FreeMs: this.#free.percentile(0.99) * 1_000, p99PaidMs: this.#paid.percentile(0.99) * 1_000
    }
  }

  get #isMeasured(): boolean {
    return this.#nowS >= this.#warmS
  }

  #call(): void {
    this.#work.pick()
    const { node, key } = this.#work
    const isPaid = this.#work.paidShare > 0 && this.#random.next() < this.#work.paidShare
    const { call, hop } = this.#costs
    if (this.#isMeasured) this.#counts.calls++
    if (this.#owners[key] === node) {
      if (this.#isMeasured) this.#counts.local++
      return this.#serve(node, isPaid, call, 0, this.#nowS)
    }
    if (this.#takeLeased(node, key)) {
      if (this.#isMeasured) this.#counts.leased++
      return this.#serve(node, isPaid, call, 0, this.#nowS)
    }
    if (this.#isMeasured) this.#counts.passedOn++
    const doneS = this.#busyWith(node, hop.from)
    this.#queue.add(doneS + this.#around.wireS / 2, happening.passed, this.#owners[key]!, isPaid ? 1 : 0, this.#nowS)
  }

  #happens(): void {
    const { kind, a, b, value } = this.#queue
    switch (kind) {
      // The answer has half of the wire still before it.
      case happening.passed: return this.#serve(a, b === 1, this.#costs.call, this.#costs.hop.to, value - this.#around.wireS / 2)
      case happening.ask: {
        const doneS = this.#busyWith(this.#owners[b]!, this.#costs.ask.to)
        // What a lease has of credits is durable before it is told.
        if (value > 0 && this.#work.paidShare > 0) this.#queue.add(doneS, happening.done, this.#owners[b]!, 0, NaN)
        return this.#queue.add(doneS + this.#around.wireS / 2, happening.grant, a, b, value)
      }
      case happening.grant: return this.#granted(a, b, value)
      case happening.done: {
        this.#waiting[a]!.push(value)
        return this.#sent[a]!.length === 0 ? this.#send(a) : undefined
      }
      case happening.durable: return this.#durable(a)
      case happening.tick: return this.#tick(a)
      default: return this.#flush(a)
    }
  }

  /** The core of a node does `micros` of work after what it has to do already; answers when it is done. */
  #busyWith(node: number, micros: number): number {
    const beginS = Math.max(this.#nowS, this.#freeAt[node]!)
    if (this.#isMeasured) this.#busy[node] = this.#busy[node]! + micros / 1e6
    return this.#freeAt[node] = beginS + micros / 1e6
  }

  #serve(node: number, isPaid: boolean, call: Costs["call"], more: number, cameS: number): void {
    const doneS = this.#busyWith(node, (isPaid ? call.paid : call.free) + more)
    if (isPaid) return this.#queue.add(doneS, happening.done, node, 0, cameS)
    this.#freeRows[node] = this.#freeRows[node]! + 1
    if (this.#isMeasured) this.#free.add(doneS - cameS)
  }

  /** One of PostgreSQL's cores does `micros` of work; answers when it is done. */
  #database(micros: number): number {
    const freeAt = this.#databaseFreeAt
    let first = 0
    for (let core = 1; core < freeAt.length; core++) if (freeAt[core]! < freeAt[first]!) first = core
    const beginS = Math.max(this.#nowS, freeAt[first]!)
    if (this.#isMeasured) this.#databaseBusy += micros / 1e6
    return freeAt[first] = beginS + micros / 1e6
  }

  #send(node: number): void {
    const batch = this.#waiting[node]!
    if (batch.length === 0) return
    this.#waiting[node] = this.#sent[node]!
    this.#sent[node] = batch
    if (this.#isMeasured) {
      this.#counts.batches++
      this.#counts.batched += batch.length
    }
    const doneS = this.#database(this.#costs.batch + batch.length * this.#costs.paidRow)
    this.#queue.add(doneS + this.#around.syncS + this.#around.wireS, happening.durable, node)
  }

  #durable(node: number): void {
    const batch = this.#sent[node]!
    if (this.#isMeasured) for (const cameS of batch) if (!Number.isNaN(cameS)) this.#paid.add(this.#nowS - cameS)
    batch.length = 0
    this.#send(node)
  }

  #flush(node: number): void {
    const rows = this.#freeRows[node]!
    if (rows > 0) this.#database(rows * this.#costs.freeRow)
    this.#freeRows[node] = 0
    this.#queue.add(this.#nowS + flushS, happening.flush, node)
  }

  #takeLeased(node: number, key: number): boolean {
    const pair = node * this.#work.keys + key
    this.#calls[pair]!++
    this.#usedAt[pair] = this.#nowS
    if (this.#isListed[pair] === 0) {
      this.#isListed[pair] = 1
      this.#listed[node]!.push(key)
    }
    if (this.#until[pair]! <= this.#nowS || this.#left[pair]! <= 0) return false
    this.#left[pair]!--
    return true
  }

  /** What the node looks after: rates are brought up to date, leases asked for, renewed, and given back. */
  #tick(node: number): void {
    const { leaseTickS, leaseIdleS, leaseCallsMin } = this.#around
    const keys = this.#listed[node]!
    let kept = 0
    for (const key of keys) {
      const pair = node * this.#work.keys + key
      const before = this.#rate[pair]!
      const rate = this.#rate[pair] = before + (this.#calls[pair]! / leaseTickS - before) * leaseTickS
      this.#calls[pair] = 0
      if (this.#isAsking[pair] === 0) {
        if (this.#nowS - this.#usedAt[pair]! >= leaseIdleS) {
          if (this.#left[pair]! > 0) this.#ask(node, key, 0)
          this.#left[pair] = 0
          this.#rate[pair] = 0
          this.#isListed[pair] = 0
          continue
        }
        const isEnding = this.#until[pair]! - this.#nowS < 1.5 * leaseTickS
        if (rate >= leaseCallsMin && (isEnding || this.#left[pair]! < rate / 2)) this.#ask(node, key, rate)
      }
      keys[kept++] = key
    }
    keys.length = kept
    this.#queue.add(this.#nowS + leaseTickS, happening.tick, node)
  }

  /** Rate 0: the lease is given back. Some asks are under way at once, the others wait. */
  #ask(node: number, key: number, rate: number): void {
    this.#isAsking[node * this.#work.keys + key] = 1
    if (this.#asking[node]! < asksAtOnce) this.#sendAsk(node, key, rate)
    else this.#due[node]!.push(key, rate)
  }

  #sendAsk(node: number, key: number, rate: number): void {
    this.#asking[node]!++
    const doneS = this.#busyWith(node, this.#costs.ask.from)
    if (this.#isMeasured) this.#counts.asks++
    const pair = node * this.#work.keys + key
    if (rate > 0) this.#left[pair] = Math.min(this.#left[pair]!, Math.ceil(rate / 20) + 1)
    this.#queue.add(doneS + this.#around.wireS / 2, happening.ask, node, key, rate === 0 ? 0 : this.#nowS)
  }

  #granted(node: number, key: number, askedS: number): void {
    const pair = node * this.#work.keys + key
    this.#asking[node]!--
    this.#isAsking[pair] = 0
    const due = this.#due[node]!
    if (due.length > 0) {
      const rate = due.pop()!
      this.#sendAsk(node, due.pop()!, rate)
    }
    if (askedS === 0) return
    this.#until[pair] = askedS + this.#around.leaseTrustS
    this.#left[pair]! += Math.ceil(this.#rate[pair]! * horizonS) + 1
  }
}
