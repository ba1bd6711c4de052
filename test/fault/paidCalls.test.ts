/**
 * Every way a paid call can end: its hold is released by each, and it is charged
 * once where the agent has answered and not at all where it has not. The same
 * with an idempotency key, which makes a retry the same call.
 */
import { Readable } from "node:stream"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type GatewayProcess, type Listed, type Person, type Reply, storm, tally, until } from "../support/GatewayProcess.ts"
import { type Behave, type LoopbackAgent, answers } from "../support/LoopbackAgent.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

let gateway: GatewayProcess
let database: StageDatabase
let seller: Person

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway(database.env)
  seller = await gateway.person()
})
afterAll(() => expectCleanBooks(database.sql))

interface Scene {
  readonly agent: LoopbackAgent
  readonly listed: Listed
  readonly buyer: Person
  readonly call: (options?: Parameters<GatewayProcess["call"]>[2]) => Promise<Reply>
  /** Calls and leaves as soon as `left` says so. */
  readonly leave: (left: Promise<unknown>, options?: Parameters<GatewayProcess["call"]>[2]) => Promise<void>
}

/** A buyer with $1.00 and an agent at $0.03. */
const scene = async (behave?: Behave): Promise<Scene> => {
  const [agent, buyer] = await Promise.all([stage.agent(behave), gateway.person("1.00")])
  const listed = await gateway.list(seller, agent.url, "0.03")
  const call: Scene["call"] = (options) => gateway.call("POST", `/v1/proxy/${listed.ticker}`, { token: buyer.token, body: { prompt: "work" }, ...options })
  return {
    agent, listed, buyer, call,
    leave: async (left, options) => {
      const leaving = new AbortController()
      const gone = expect(call({ ...options, signal: leaving.signal })).rejects.toThrow()
      await left
      leaving.abort()
      await gone
    }
  }
}

const expectCharged = async ({ buyer }: Scene, times: 0 | 1): Promise<void> => {
  // A caller that left learns nothing of the end of its call, so neither does the test.
  await until(async () => (await gateway.ask(200, "GET", "/v1/credits/holds", { token: buyer.token })).length === 0)
  await until(async () => await gateway.metric("tollgate_calls_under_way") === 1) // The question itself.
  expect(await gateway.metric("tollgate_holds_open")).toBe(0)
  expect(await gateway.balance(buyer)).toEqual({ balance_usd: times === 1 ? "0.97" : "1.00", reserved_usd: "0.00" })
  const charges = await database.sql`select from transactions where account_id = ${buyer.accountId} and type = 'charge'`
  expect(charges).toHaveLength(times)
}

describe("a paid call is not charged, and its hold is released, when its agent", () => {
  it.each<[string, Behave, number]>([
    ["answers 500", answers("no", 500), 500],
    ["resets the connection", (response) => response.socket?.resetAndDestroy(), 503],
    ["hangs up without an answer", (response) => response.socket?.end(), 503],
    ["hangs up in the middle of a small answer", (response) => {
      response.writeHead(200, { "content-length": 100 }).write("a beginning", () => response.socket?.destroy())
    }, 503],
    ["hangs up in the middle of a failure", (response) => {
      response.writeHead(502, { "content-length": 100 }).write("a beginning", () => response.socket?.destroy())
    }, 503]
  ])("%s", async (_, behave, status) => {
    const there = await scene(behave)
    const reply = await there.call()
    expect(reply.status).toBe(status)
    expect(reply.headers).not.toHaveProperty("x-autx-cost-usd")
    if (status === 503) expect(Number(reply.headers["retry-after"])).toBeGreaterThanOrEqual(1)
    await expectCharged(there, 0)
  })

  it("is not there", async () => {
    const there = await scene()
    there.agent.close()
    expect(await there.call()).toMatchObject({ status: 503 })
    await expectCharged(there, 0)
  })
})

describe("a paid call is not charged, and its hold is released, when its caller leaves", () => {
  it("while the agent works, which is told", async () => {
    let told!: () => void
    const agentTold = new Promise<void>((resolve) => { told = resolve })
    const there = await scene((response) => response.once("close", told))
    await there.leave(there.agent.seen(1))
    await agentTold
    await expectCharged(there, 0)
  })

  const size = { "content-type": "application/octet-stream", "content-length": String(1024 * 1024) }
  const half = (bytes: number): Readable => Readable.from((async function*() {
    yield Buffer.alloc(bytes)
    await new Promise(() => {})
  })(), { objectMode: false })

  it("in the middle of an upload that streams to the agent", async () => {
    const there = await scene(() => {})
    await there.leave(there.agent.seen(1), { headers: size, body: half(512 * 1024) })
    await expectCharged(there, 0)
  })

  it("in the middle of a body that is still being collected", async () => {
    const there = await scene()
    const begun = until(async () => await gateway.metric("tollgate_calls_under_way") === 2)
    await there.leave(begun, { headers: { ...size, "content-length": "1000" }, body: half(500) })
    await expectCharged(there, 0)
    expect(there.agent.asked).toEqual([])
  })

  it("in the middle of a small answer", async () => {
    const there = await scene((response) => response.writeHead(200, { "content-length": 100 }).write("a beginning"))
    await there.leave(there.agent.seen(1))
    await expectCharged(there, 0)
  })
})

describe("a paid call is charged exactly once when", () => {
  it("the agent answers, well or with a refusal of its own", async () => {
    for (const status of [200, 404]) {
      const there = await scene(answers("an answer", status))
      const reply = await there.call()
      expect(reply).toMatchObject({ status, text: "an answer", headers: { "x-autx-cost-usd": "0.03", "x-autx-balance-usd": "0.97" } })
      await expectCharged(there, 1)
    }
  })

  it("the agent hangs up in the middle of an answer that streams", async () => {
    const there = await scene((response) => { response.writeHead(200).write("a beginning", () => response.socket?.destroy()) })
    await expect(there.call()).rejects.toThrow()
    await expectCharged(there, 1)
  })

  it("the caller leaves in the middle of an answer that streams", async () => {
    const there = await scene((response) => { response.writeHead(200).write("a beginning") })
    const charged = until(async () => (await database.sql`select from transactions where account_id = ${there.buyer.accountId} and type = 'charge'`).length === 1)
    await there.leave(charged)
    await expectCharged(there, 1)
  })

  it("the caller leaves while the charge is on its way", async () => {
    const there = await scene(answers("an answer"))
    await database.sql.begin(async (locked) => {
      await locked`select from accounts where id = ${there.buyer.accountId} for update`
      await there.leave(until(async () => (await database.sql`
        select from pg_stat_activity where datname = current_database() and application_name = 'tollgate-committer' and wait_event_type = 'Lock'`).length === 1))
    })
    await expectCharged(there, 1)
  })
})

describe("paid calls with one idempotency key", () => {
  const key = { "idempotency-key": "once" }

  it("are one call: the second repeats the first answer and its bill", async () => {
    const there = await scene(answers("an answer"))
    const first = await there.call({ headers: key })
    const second = await there.call({ headers: key })
    expect([first.status, first.headers["idempotent-replayed"]]).toEqual([200, undefined])
    expect([second.status, second.headers["idempotent-replayed"]]).toEqual([200, "true"])
    expect(second.text).toBe("an answer")
    expect(second.headers["x-autx-transaction-id"]).toBe(first.headers["x-autx-transaction-id"])
    expect(first.headers["x-autx-transaction-id"]).toMatch(/^[0-9a-f-]{36}$/)
    expect(there.agent.asked).toHaveLength(1)
    await expectCharged(there, 1)
  })

  it("repeat the first answer also after kill -9", async () => {
    const there = await scene(answers("an answer"))
    const first = await there.call({ headers: key })
    const other = await stage.gateway(database.env)
    await gateway.kill9()
    gateway = other
    expect(await there.call({ headers: key })).toMatchObject({
      status: 200, text: "an answer", headers: { "idempotent-replayed": "true", "x-autx-transaction-id": first.headers["x-autx-transaction-id"] }
    })
    expect(there.agent.asked).toHaveLength(1)
    await expectCharged(there, 1)
  })

  it("are refused with 409 when the body is another", async () => {
    const there = await scene(answers("an answer"))
    await there.call({ headers: key })
    expect(await there.call({ headers: key, body: { prompt: "other work" } })).toMatchObject({ status: 409 })
    expect(there.agent.asked).toHaveLength(1)
    await expectCharged(there, 1)
  })

  it("at the same time, 50 of them, ask the agent once", async () => {
    const there = await scene(answers("an answer"))
    there.agent.keep()
    let refused = 0
    const replies = await storm(50, 50, async () => {
      const reply = await there.call({ headers: key })
      if (reply.status === 409 && ++refused === 49) there.agent.release()
      return reply
    })
    expect(tally(replies)).toEqual({ 200: 1, 409: 49 })
    expect(await there.call({ headers: key })).toMatchObject({ status: 200, headers: { "idempotent-replayed": "true" } })
    expect(there.agent.asked).toHaveLength(1)
    await expectCharged(there, 1)
  })

  it("may be tried again when nothing was charged", async () => {
    const there = await scene(answers("no", 500))
    expect(await there.call({ headers: key })).toMatchObject({ status: 500 })
    there.agent.behave = answers("an answer")
    expect(await there.call({ headers: key })).toMatchObject({ status: 200, text: "an answer" })
    expect(there.agent.asked).toHaveLength(2)
    await expectCharged(there, 1)
  })
})
