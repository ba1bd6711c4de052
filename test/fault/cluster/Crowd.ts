/**
 * Callers of all kinds, who use every node at once and write down what they did:
 * payers who are cut off, or repeat a call with its key until they know; people
 * who order, who deposit, who chat from node to node, who are near their last
 * cent or their key's budget, and who take keys back that are in use.
 *
 * They stop when they are told, and then finish what has a name: whatever they
 * don't know the outcome of is repeated until they do.
 */
import { randomUUID } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import { ChatSocket } from "../../support/ChatSocket.ts"
import type { GatewayProcess, Listed, Person, Reply } from "../../support/GatewayProcess.ts"
import type { Random } from "../../support/Random.ts"
import { History, type Outcome, type Wish } from "./History.ts"
import { type Works, attemptHeader } from "./Works.ts"

/** The nodes as they are now: one that was started again is another process. */
export interface Nodes {
  readonly count: () => number
  /** `undefined`: it does not run. */
  readonly at: (nth: number) => GatewayProcess | undefined
}

/** A whole number of micro-dollars, from decimal text. */
export const micro = (usd: string): bigint => {
  const [whole = "", part = ""] = usd.split(".")
  return BigInt(whole + part.padEnd(6, "0"))
}

export interface Sold extends Listed {
  readonly price: bigint
}

export interface Buyer extends Person {
  readonly key: string
  readonly keyId: string
}

/** Longer than anything here is out of order; the checker sees what came of it. */
const patienceMs = 20_000
const finishMs = 20_000

const prices = ["0.01", "0.03", "0.000007"]

/** Waits for it so long and no longer. */
const within = <A>(ms: number, promise: Promise<A>): Promise<A> => {
  const timer = new AbortController()
  return Promise.race([
    promise.finally(() => timer.abort()),
    sleep(ms, undefined, { signal: timer.signal }).then(() => { throw new Error(`nothing came in ${ms} ms`) }, () => new Promise<never>(() => {}))
  ])
}

/** For what is made before anything goes wrong: nodes that have just come are still dividing the accounts. */
const patiently = async <A>(make: () => Promise<A>): Promise<A> => {
  for (;;) {
    try {
      return await make()
    } catch (cause) {
      if (!(cause as Error).message.includes("got 503")) throw cause
      await sleep(50)
    }
  }
}

const codeOf = (cause: unknown): string => {
  const { name, code, message } = cause as { readonly name?: string; readonly code?: unknown; readonly message?: string }
  return name === "TimeoutError" ? name : String(code ?? message)
}

const outcomeOf = ({ status, headers, text, json }: Reply, price: bigint): Outcome => {
  if (status === 200 || status === 201) {
    const told = headers["x-autx-transaction-id"] as string | undefined ?? json?.id
    const cost = headers["x-autx-cost-usd"] as string | undefined
    return { tag: "ok", effectId: told, cost: cost === undefined ? price : micro(cost), text, isReplay: headers["idempotent-replayed"] === "true" }
  }
  const detail = String(json?.detail ?? text)
  if (status === 503 && detail.includes("not known yet")) return { tag: "unknown", why: detail }
  return { tag: "refused", status, detail, hasRetryAfter: Number(headers["retry-after"]) >= 1 }
}

export class Crowd {
  readonly history = new History()
  readonly people: Array<Person> = []
  /** Agents' owners. */
  readonly owners = new Map<string, string>()
  readonly budgets = new Map<string, bigint>()
  readonly #nodes: Nodes
  readonly #works: Works
  readonly #random: Random
  readonly #pauseMs: number
  readonly #sockets: Array<ChatSocket> = []
  #running = true
  #giveUpAtMs = Infinity

  /** Between two things that one caller does lie at most `pauseMs`. */
  constructor(nodes: Nodes, works: Works, random: Random, pauseMs = 25) {
    this.#pauseMs = pauseMs
    this.#nodes = nodes
    this.#works = works
    this.#random = random
  }

  /** Tells everybody to come to an end. */
  stop(): void {
    this.#running = false
    this.#giveUpAtMs = performance.now() + finishMs
  }

  hangUp(): void {
    for (const socket of this.#sockets.splice(0)) socket.close()
  }

  /** Somebody with money and a key. */
  async buyer(usd: string, budget?: string): Promise<Buyer> {
    const gateway = this.#first
    const person = await patiently(() => gateway.person())
    this.people.push(person)
    await this.deposit(person, usd)
    const budgets = budget === undefined ? [] : [{ amount_usd: budget, window: "total" }]
    const { id, key } = await patiently(() => gateway.ask(201, "POST", "/v1/api-keys", { token: person.token, body: { name: "test", scopes: "*", budgets } }))
    if (budget !== undefined) this.budgets.set(id, micro(budget))
    return { ...person, key, keyId: id }
  }

  sell(person: Person): Promise<ReadonlyArray<Sold>> {
    return Promise.all(prices.map((price) => this.list(person, this.#works, price)))
  }

  async list(person: Person, { url }: Works, price: string): Promise<Sold> {
    const listed = await patiently(() => this.#first.list(person, url, price))
    this.owners.set(listed.id, person.accountId)
    return { ...listed, price: micro(price) }
  }

  async seller(): Promise<ReadonlyArray<Sold>> {
    const person = await patiently(() => this.#first.person())
    this.people.push(person)
    return this.sell(person)
  }

  /** Everybody, until `stop` and the end of what is under way. Answers when they stand ready; `done` when they have ended. */
  async gather(): Promise<{ readonly done: Promise<unknown> }> {
    const [sold, rich, poor, bound, chatter, dealer] = await Promise.all([this.seller(), this.buyer("50"), this.buyer("0.60"), this.buyer("50", "0.50"), this.buyer("20"), this.buyer("5")])
    const dealt = await this.sell(dealer)
    const each = [
      this.#pay(rich, [...sold, ...dealt]), this.#pay(rich, [...sold, ...dealt]), this.#pay(poor, sold), this.#pay(poor, dealt), this.#pay(bound, sold), this.#pay(bound, sold),
      this.#pay(dealer, sold), this.#order(rich, sold), this.#order(poor, sold), this.#order(bound, dealt), this.#topUp(poor), this.#chat(chatter, sold[0]!), this.#revoke(rich, sold[0]!)
    ]
    return { done: Promise.all(each) }
  }

  /** For what must be there before anything goes wrong. */
  get #first(): GatewayProcess {
    return this.#nodes.at(0)!
  }

  get #node(): number {
    return this.#random.below(this.#nodes.count())
  }

  #goesOn(): boolean {
    return performance.now() < this.#giveUpAtMs
  }

  async #loop(once: () => Promise<unknown>): Promise<void> {
    while (this.#running) {
      await once()
      await sleep(this.#random.below(this.#pauseMs))
    }
  }

  /** One attempt over HTTP at one node. */
  #send(wish: Wish, node: number, path: string, token: string, body: object, cutMs?: number): Promise<Outcome> {
    return this.history.attempt(wish, node, async (id) => {
      const gateway = this.#nodes.at(node)
      if (gateway === undefined) return { tag: "unreached" }
      const headers = { [attemptHeader]: id, ...(wish.isNamed ? { "idempotency-key": wish.intent } : {}) }
      try {
        return outcomeOf(await gateway.call("POST", path, { token, body, headers, signal: AbortSignal.timeout(cutMs ?? patienceMs) }), wish.price)
      } catch (cause) {
        return codeOf(cause) === "ECONNREFUSED" ? { tag: "unreached" } : { tag: "unknown", why: codeOf(cause) }
      }
    })
  }

  /** Repeats it, at whatever node, until it is known to be done, or refused for good. */
  async #insist(wish: Wish, path: string, token: string, body: object): Promise<void> {
    while (this.#goesOn()) {
      const outcome = await this.#send(wish, this.#node, path, token, body)
      if (outcome.tag === "ok" || outcome.tag === "refused" && (outcome.status === 402 || outcome.status === 401)) return
      await sleep(20 + this.#random.below(60))
    }
  }

  async deposit({ accountId, token }: Person, usd: string): Promise<void> {
    const wish: Wish = { kind: "deposit", intent: randomUUID(), isNamed: true, accountId, subjectId: accountId, agentId: undefined, price: micro(usd) }
    await this.#insist(wish, "/v1/credits/deposit-test", token, { amount: usd })
  }

  #topUp(person: Person): Promise<void> {
    return this.#loop(async () => {
      await this.deposit(person, "0.05")
      await sleep(this.#random.below(500))
    })
  }

  /** One plain call at a node, which waits so long for its answer. */
  callOnce({ accountId, keyId: subjectId, key }: Buyer, { id: agentId, ticker, price }: Sold, node: number, waitMs = patienceMs): Promise<Outcome> {
    const wish: Wish = { kind: "call", intent: randomUUID(), isNamed: false, accountId, subjectId, agentId, price }
    return this.#send(wish, node, `/v1/proxy/${ticker}`, key, { prompt: wish.intent }, waitMs)
  }

  /** Plain calls, one after another, each at any node, whatever comes of them. */
  call(buyer: Buyer, sold: Sold, waitMs = patienceMs): Promise<void> {
    return this.#loop(() => this.callOnce(buyer, sold, this.#node, waitMs))
  }

  #pay(buyer: Buyer, sold: ReadonlyArray<Sold>): Promise<void> {
    const { accountId, keyId: subjectId, key } = buyer
    return this.#loop(async () => {
      const { id: agentId, ticker, price } = this.#random.of(sold)
      const wish: Wish = { kind: "call", intent: randomUUID(), isNamed: this.#random.chance(0.5), accountId, subjectId, agentId, price }
      const [path, body] = [`/v1/proxy/${ticker}`, { prompt: wish.intent }]
      if (!wish.isNamed) {
        const outcome = await this.#send(wish, this.#node, path, key, body, this.#random.chance(0.15) ? this.#random.below(60) : undefined)
        if (outcome.tag !== "ok") await sleep(this.#random.below(50))
        return
      }
      const crowd = this.#random.chance(0.3) ? 3 : 1
      await Promise.all(Array.from({ length: crowd }, () => this.#insist(wish, path, key, body)))
      // Once it is done it can be heard again, anywhere.
      if (this.#random.chance(0.3)) await this.#send(wish, this.#node, path, key, body)
    })
  }

  #order({ accountId, keyId: subjectId, key }: Buyer, sold: ReadonlyArray<Sold>): Promise<void> {
    return this.#loop(async () => {
      const { id: agentId, price } = this.#random.of(sold)
      const wish: Wish = { kind: "order", intent: randomUUID(), isNamed: this.#random.chance(0.5), accountId, subjectId, agentId, price }
      const body = { agent_id: agentId, prompt: wish.intent }
      if (wish.isNamed) await this.#insist(wish, "/v1/orders", key, body)
      else await this.#send(wish, this.#node, "/v1/orders", key, body, this.#random.chance(0.15) ? this.#random.below(40) : undefined)
      await sleep(this.#random.below(100))
    })
  }

  /** Sessions that move: each socket is at another node than the one before, and dropped sooner or later, with a turn under way or not. */
  async #chat({ accountId, keyId: subjectId, key }: Buyer, { id: agentId, ticker, price }: Sold): Promise<void> {
    const sessions = new Set<string>()
    let sessionId: string | undefined
    let intent: string | undefined
    while (this.#running || intent !== undefined && this.#goesOn()) {
      const node = this.#node
      const socket = await this.#open(node, ticker, key, sessionId)
      if (socket === undefined) {
        await sleep(this.#random.below(200))
        continue
      }
      sessionId = socket.session["session_id"] as string
      sessions.add(sessionId)
      do {
        intent ??= randomUUID()
        const wish: Wish = { kind: "turn", intent, isNamed: true, accountId, subjectId, agentId, price }
        const outcome = await this.history.attempt(wish, node, () => turn(socket, wish.intent, this.#random.chance(0.2) ? this.#random.below(40) : patienceMs))
        if (outcome.tag !== "ok") break
        intent = undefined
        await sleep(this.#random.below(50))
      } while (this.#running && this.#random.chance(0.7))
      socket.close()
      // A message's id is known to its session: whoever begins another leaves what was open there to the books.
      if (this.#running && this.#random.chance(0.1)) sessionId = intent = undefined
      await sleep(this.#random.below(50))
    }
    await Promise.all([...sessions].map((id) => this.#persist("DELETE", `/v1/sessions/${id}`, key)))
  }

  async #open(node: number, ticker: string, key: string, sessionId: string | undefined): Promise<ChatSocket | undefined> {
    const gateway = this.#nodes.at(node)
    if (gateway === undefined) return undefined
    try {
      const socket = await within(5_000, ChatSocket.connect(`${gateway.url}/v1/ws/agent/${ticker}`))
      this.#sockets.push(socket)
      socket.send({ type: "auth", token: key, ...(sessionId === undefined ? {} : { session_id: sessionId }) })
      await within(10_000, socket.next("session"))
      return socket
    } catch {
      return undefined
    }
  }

  /** A key that is used at every node, and taken back at one of them. */
  async #revoke({ accountId, token }: Person, sold: Sold): Promise<void> {
    const made = await this.#persist("POST", "/v1/api-keys", token, { name: "short", scopes: "*" })
    if (made === undefined) return
    const subjectId = made.json.id as string
    const short: Buyer = { accountId, token, keyId: subjectId, key: made.json.key as string }
    const users = [this.call(short, sold), this.call(short, sold)]
    await sleep(this.#random.below(1_500))
    const gone = await this.#persist("DELETE", `/v1/api-keys/${subjectId}`, token)
    if (gone !== undefined) this.history.revocations.push({ subjectId, answeredMs: performance.now() })
    await Promise.all(users)
  }

  /** Repeats something of the management API until it is done. 404 of a DELETE: one before did it. */
  async #persist(method: "POST" | "DELETE", path: string, token: string, body?: object): Promise<Reply | undefined> {
    while (this.#goesOn()) {
      const reply = await this.#nodes.at(this.#node)?.call(method, path, { token, ...(body === undefined ? {} : { body }), signal: AbortSignal.timeout(patienceMs) }).catch(() => undefined)
      if (reply !== undefined && (reply.status < 300 || reply.status === 404)) return reply
      await sleep(20 + this.#random.below(60))
    }
    return undefined
  }
}

/** One message, until its bill; whatever else comes leaves it open what became of it. */
const turn = async (socket: ChatSocket, intent: string, patienceMs: number): Promise<Outcome> => {
  const from = socket.frames.length
  try {
    socket.message(intent, intent)
    const bill = await within(patienceMs, socket.until(({ type, id }) => type === "billing" && id === intent, from, ({ type }) => type === "error"))
    return { tag: "ok", effectId: bill["order_id"] as string, cost: micro(bill["amount_charged"] as string), text: "", isReplay: bill["replayed"] === true }
  } catch (cause) {
    return { tag: "unknown", why: (cause as Error).message.slice(0, 200) }
  }
}
