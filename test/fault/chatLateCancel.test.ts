/**
 * Who has read everything and says no to the bill: a turn whose agent was done is
 * charged, once, whatever its client does then; one that was not done costs
 * nothing. What the client was told and what the books say never differ, and
 * nobody can live on the difference.
 */
import { setImmediate as tick } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type AskedTurn } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent } from "../support/ChatScene.ts"
import { type GatewayProcess, until } from "../support/GatewayProcess.ts"
import { LightChat } from "../support/LightChat.ts"
import { Random } from "../support/Random.ts"
import { expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
let scene: ChatScene
beforeAll(async () => {
  scene = await ChatScene.set(stage, { CHAT_LATE_CANCELS_PER_DAY: "1000000" })
})

const ways = ["cancel", "close", "DELETE", "reset", "hang up"] as const
type Way = typeof ways[number]

interface Talk {
  readonly buyer: Buyer
  readonly listed: ListedAgent
  readonly chat: LightChat
  readonly turn: AskedTurn
}

/** A turn of which the client has read all that there is so far. */
const talk = async (buyer: Buyer, listed: ListedAgent): Promise<Talk> => {
  const chat = await LightChat.open(scene.gateway.port, listed.ticker, buyer.key)
  const asked = new Promise<AskedTurn>((met) => { turnsOf.set(chat.sessionId, met) })
  chat.send({ type: "message", prompt: "hello", id: "m" })
  const turn = await asked
  await chat.next("chunk")
  return { buyer, listed, chat, turn }
}
const turnsOf = new Map<string, (turn: AskedTurn) => void>()
const begins = (turn: AskedTurn): void => {
  turn.say("begun, ")
  turnsOf.get(turn.body.session_id)!(turn)
}

const say = ({ buyer, chat }: Talk, way: Way): Promise<unknown> | void => {
  switch (way) {
    case "cancel": return chat.send({ type: "cancel" })
    case "close": return chat.send({ type: "close" })
    case "DELETE": return scene.gateway.ask(204, "DELETE", `/v1/sessions/${chat.sessionId}`, { token: buyer.key })
    case "reset": return chat.reset()
    case "hang up": return chat.hangUp(1000)
  }
}

/** Waits until the gateway knows, whose answer may have to wait. `open`: the sockets that it had before. */
const heard = async ({ chat }: Talk, way: Way, open: number): Promise<unknown> => {
  if (way === "reset" || way === "hang up") return until(async () => await scene.gateway.metric("tollgate_sockets_open") < open)
  if (way === "DELETE") return scene.gateway.call("GET", "/health")
  chat.send({ type: "ping" })
  return chat.next("pong")
}

/** What the client is told at last: the order that it pays for, or that it pays for none. */
const toldOf = async (talk: Talk, way: Way): Promise<string | undefined> => {
  let { chat } = talk
  switch (way) {
    case "cancel":
      await chat.until(({ type, code }) => type === "billing" || code === "turn_cancelled")
      break
    case "close":
      expect(await chat.closed()).toBe("1000")
      expect(chat.frames.at(-1)).toMatchObject({ type: "notice", code: "session_closed" })
      break
    case "DELETE":
      expect(await chat.closed()).toBe("4410")
      break
    default:
      await chat.closed()
      if (chat.frames.some(({ type }) => type === "billing")) break
      chat = await LightChat.open(scene.gateway.port, talk.listed.ticker, talk.buyer.key, chat.sessionId)
      expect(chat.frames[0]).toMatchObject({ resumed: true, discontinuity: false })
      chat.send({ type: "message", prompt: "hello", id: "m" })
      // The same id is refused while its turn is on its way, and never asked again.
      await chat.next("billing").catch(() => chat.until(({ type }) => type === "billing"))
  }
  const bills = chat.frames.filter(({ type }) => type === "billing")
  expect(new Set(bills.map(({ order_id }) => order_id)).size).toBeLessThanOrEqual(1)
  const wasCancelled = chat.frames.some(({ code }) => code === "turn_cancelled")
  expect([bills.length > 0, wasCancelled]).not.toEqual([true, true])
  return bills[0]?.["order_id"] as string | undefined
}

/** The orders of sessions that the books have, and that each was charged once. */
const charged = async (sessions: ReadonlyArray<string>): Promise<ReadonlyMap<string, string>> => {
  const rows = await scene.database.sql<Array<{ session_id: string; order_id: string; charges: number }>>`
    select o.session_id, o.id as order_id, (select count(*)::int from transactions t where t.order_id = o.id and t.type = 'charge' and t.available = -o.amount) as charges
    from orders o where o.session_id = any(${sessions as Array<string>})`
  expect(rows.filter(({ charges }) => charges !== 1)).toEqual([])
  expect(new Set(rows.map(({ session_id }) => session_id)).size).toBe(rows.length)
  return new Map(rows.map(({ session_id, order_id }) => [session_id, order_id]))
}

const lateCancelsOf = async ({ id }: ListedAgent): Promise<number> =>
  (await scene.gateway.ask(200, "GET", "/v1/agents/?owner=me&limit=100", { token: scene.seller.token })).find((agent: { id: string }) => agent.id === id).late_cancels_today

describe("a turn whose agent was done, while its charge is on its way to the database", () => {
  it.each(ways)("is charged once, and told, when its client says: %s", async (way) => {
    const [buyer, listed] = await Promise.all([scene.buyer("1.00"), scene.list("0.01", begins)])
    const one = await talk(buyer, listed)
    let unlock = (): void => {}
    const lock = new Promise<void>((locked) => {
      const released = new Promise<void>((release) => { unlock = release })
      stage.onEnd(unlock)
      void scene.database.sql.begin(async (sql) => {
        await sql`select from accounts where id = ${buyer.accountId} for update`
        locked()
        await released
      })
    })
    await lock
    one.turn.end("and done")
    await until(async () => (await scene.database.sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).length > 0)
    expect(one.chat.frames.some(({ type }) => type === "done" || type === "billing")).toBe(false)
    const open = await scene.gateway.metric("tollgate_sockets_open")
    const said = say(one, way)
    await heard(one, way, open)
    unlock()
    await said
    const orderId = await toldOf(one, way)
    expect(orderId).toBeDefined()
    expect(await charged([one.chat.sessionId])).toEqual(new Map([[one.chat.sessionId, orderId]]))
    expect(await lateCancelsOf(listed)).toBe(0)
    expect(listed.agent.turns).toHaveLength(1)
    if (way !== "close" && way !== "DELETE") await scene.gateway.ask(204, "DELETE", `/v1/sessions/${one.chat.sessionId}`, { token: buyer.key })
    await scene.expectLeft(buyer, "0.99")
  })
})

describe("a turn whose agent was not done", () => {
  it.each(["cancel", "close", "DELETE"] as const)("costs nothing when its client has read everything but the end, and says: %s", async (way) => {
    const [buyer, listed] = await Promise.all([scene.buyer("1.00"), scene.list("0.01", begins)])
    const one = await talk(buyer, listed)
    await say(one, way)
    await one.turn.gone
    expect(await toldOf(one, way)).toBeUndefined()
    one.turn.end("and done")
    expect(await charged([one.chat.sessionId])).toEqual(new Map())
    await until(async () => await lateCancelsOf(listed) === 1)
    if (way === "cancel") await scene.gateway.ask(204, "DELETE", `/v1/sessions/${one.chat.sessionId}`, { token: buyer.key })
    await scene.expectLeft(buyer, "1.00")
  })
})

it("of 200 sessions whose clients cancel, close, DELETE or leave as the last byte leaves the agent, each pays for what it was billed, once, or was told that it pays nothing, and who paid nothing is counted", { timeout: 120_000 }, async () => {
  const random = new Random()
  console.info(`SEED=${random.seed}`)
  const listed = await scene.list("0.01", begins)
  const buyers = await Promise.all(Array.from({ length: 8 }, () => scene.buyer("10.00")))
  const cases = Array.from({ length: 200 }, (_, n) => ({ way: ways[n % ways.length]!, buyer: buyers[n % buyers.length]!, before: random.below(4), after: random.below(4) }))
  const ends: Array<{ readonly way: Way; readonly buyer: Buyer; readonly session: string; readonly told: string | undefined }> = []
  for (let wave = 0; wave < cases.length; wave += 20) {
    await Promise.all(cases.slice(wave, wave + 20).map(async ({ way, buyer, before, after }) => {
      const one = await talk(buyer, listed)
      const speak = async (): Promise<unknown> => {
        for (let n = 0; n < before; n++) await tick()
        return say(one, way)
      }
      const finish = async (): Promise<void> => {
        for (let n = 0; n < after; n++) await tick()
        one.turn.end("and done")
      }
      await Promise.all([speak(), finish()])
      ends.push({ way, buyer, session: one.chat.sessionId, told: await toldOf(one, way) })
    }))
  }
  const books = await charged(ends.map(({ session }) => session))
  expect(ends.filter(({ session, told }) => books.get(session) !== told)).toEqual([])
  // Who only leaves has not said no.
  expect(ends.filter(({ way, told }) => (way === "reset" || way === "hang up") && told === undefined)).toEqual([])
  const unpaid = ends.filter(({ told }) => told === undefined)
  expect(unpaid.length).toBeGreaterThan(0)
  expect(books.size).toBeGreaterThan(80)
  await until(async () => await lateCancelsOf(listed) >= unpaid.length)
  expect(await lateCancelsOf(listed)).toBe(unpaid.length)
  await Promise.all(ends.map(({ session, buyer }) => scene.gateway.call("DELETE", `/v1/sessions/${session}`, { token: buyer.token })))
  for (const buyer of buyers) {
    const paid = ends.filter((end) => end.buyer === buyer && end.told !== undefined).length
    await scene.expectLeft(buyer, (10 - paid / 100).toFixed(2))
  }
})

describe("the late cancels of a buyer with an agent", () => {
  const late = async (gateway: GatewayProcess, listed: ListedAgent, buyer: Buyer, sessionId?: string): Promise<string> => {
    const chat = await LightChat.open(gateway.port, listed.ticker, buyer.key, sessionId)
    chat.send({ type: "message", prompt: "hello" })
    await chat.next("chunk")
    chat.send({ type: "cancel" })
    expect(await chat.next("notice")).toMatchObject({ code: "turn_cancelled", late: true })
    chat.reset()
    return chat.sessionId
  }
  const expectRefused = async (gateway: GatewayProcess, listed: ListedAgent, buyer: Buyer, sessionId?: string): Promise<void> => {
    const chat = await LightChat.open(gateway.port, listed.ticker, buyer.key, sessionId)
    chat.send({ type: "message", prompt: "hello" })
    expect(await chat.closed()).toBe("4429")
    const leftSeconds = 86_400 - Math.floor(Date.now() / 1_000) % 86_400
    const refusal = chat.frames.at(-1)!
    expect(refusal).toMatchObject({ type: "error", code: "rate_limited", fatal: true })
    expect(refusal["retry_after"]).toBeGreaterThanOrEqual(leftSeconds - 1)
  }
  const expectServed = async (gateway: GatewayProcess, listed: ListedAgent, buyer: Buyer): Promise<void> => {
    const chat = await LightChat.open(gateway.port, listed.ticker, buyer.key)
    chat.send({ type: "message", prompt: "hello" })
    await chat.next("chunk")
    chat.reset()
  }

  it("past the day's bound refuse its new turns until the day is over, also after kill -9, and nobody else's", { timeout: 60_000 }, async () => {
    const own = await ChatScene.set(stage, { CHAT_LATE_CANCELS_PER_DAY: "3" })
    const speaks = (turn: AskedTurn): void => { if (turn.body.prompt !== "silence") turn.say("begun") }
    const [listed, other, buyer, stranger] = await Promise.all([own.list("0.01", speaks), own.list("0.01", speaks), own.buyer("5.00"), own.buyer("5.00")])
    const early = await LightChat.open(own.gateway.port, listed.ticker, buyer.key)
    for (let n = 0; n < 5; n++) {
      const from = early.frames.length
      early.send({ type: "message", prompt: "silence" })
      await listed.agent.next()
      early.send({ type: "cancel" })
      expect(await early.next("notice", from)).toMatchObject({ code: "turn_cancelled", late: false })
    }
    const session = await late(own.gateway, listed, buyer)
    await late(own.gateway, listed, buyer)
    await late(own.gateway, listed, buyer, session)
    // Wherever the buyer asks from; and it may still open sessions, as the agent may be another tomorrow.
    await expectRefused(own.gateway, listed, buyer)
    await expectRefused(own.gateway, listed, buyer, session)
    await expectServed(own.gateway, other, buyer)
    await expectServed(own.gateway, listed, stranger)
    const owners = await own.gateway.ask(200, "GET", "/v1/agents/?owner=me", { token: own.seller.token })
    expect(Object.fromEntries(owners.map(({ ticker, late_cancels_today }: any) => [ticker, late_cancels_today]))).toEqual({ [listed.ticker]: 3, [other.ticker]: 0 })
    expect(Object.keys((await own.gateway.ask(200, "GET", "/v1/agents/", { token: own.seller.token }))[0])).not.toContain("late_cancels_today")

    await own.gateway.kill9()
    await own.restart()
    await expectRefused(own.gateway, listed, buyer)
    await expectRefused(own.gateway, listed, buyer, session)
    await expectServed(own.gateway, other, buyer)
    await expectServed(own.gateway, listed, stranger)
    expect(await own.charges(buyer)).toBe(0)
    await expectCleanBooks(own.database.sql)
  })
})
