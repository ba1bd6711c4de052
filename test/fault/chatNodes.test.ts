/**
 * Sessions that outlive their gateway, or have two: no turn is charged twice or
 * for nothing, whoever has the session, and what a crash leaves unpaid is counted.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, expectNoHolds } from "../support/ChatScene.ts"
import { ChatSocket } from "../support/ChatSocket.ts"
import { startCluster } from "../support/ClusterProcesses.ts"
import { type GatewayProcess, until } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

/** Two nodes of one cluster. */
let scene: ChatScene
let first: GatewayProcess
let second: GatewayProcess
beforeAll(async () => {
  const cluster = await startCluster({ env: { CHAT_RESUME_SECONDS: "2" } })
  stage.onEnd(() => cluster.end())
  scene = await ChatScene.among(stage, cluster)
  ;[first, second] = cluster.nodes.map(({ gateway }) => gateway) as [GatewayProcess, GatewayProcess]
})

const arrange = async () => {
  scene.gateway = first
  const [listed, buyer] = await Promise.all([scene.list("0.01"), scene.buyer("1.00")])
  const open = (gateway: GatewayProcess, sessionId?: string): Promise<ChatSocket> => ChatSocket.open(gateway, listed.ticker, buyer.key, sessionId)
  return { listed, buyer, open }
}

/** Nobody holds anything any more; the second has had the account last, and so knows what is left. */
const expectLeft = async (buyer: Buyer, usd: string): Promise<void> => {
  for (const gateway of [first, second]) await expectNoHolds(gateway)
  scene.gateway = second
  await scene.expectLeft(buyer, usd)
}

describe("a session that is resumed on another gateway", { timeout: 60_000 }, () => {
  it("in the middle of its turn goes on there; the turn is not charged where it runs, and can be sent again", async () => {
    const { listed, buyer, open } = await arrange()
    const before = await open(first)
    const sessionId = before.session["session_id"] as string
    before.message("hello", "m-1")
    const running = await listed.agent.next()
    running.say("begun")
    await before.next("chunk")
    const after = await open(second, sessionId)
    expect(after.session).toMatchObject({ resumed: true, discontinuity: true, message_count: 0, session_total: "0.00" })
    // The first node hears of it, and hangs up on both sides.
    expect(await before.ended()).toMatchObject({ code: 4409, error: { code: "session_replaced" } })
    await running.gone
    expect(before.frames.map(({ type }) => type)).not.toContain("billing")
    expect(await scene.charges(buyer)).toBe(0)
    after.message("hello", "m-1")
    ;(await listed.agent.next()).end("once")
    expect(await after.next("billing")).toMatchObject({ amount_charged: "0.01", session_total: "0.01" })
    after.send({ type: "close" })
    await after.closed
    await expectLeft(buyer, "0.99")
  })

  it("and back again is the one that was resumed last, and none of the others can have a turn charged", async () => {
    const { listed, buyer, open } = await arrange()
    listed.agent.behave = echoes
    const sockets = [await open(first)]
    const sessionId = sockets[0]!.session["session_id"] as string
    await sockets[0]!.turn("one")
    for (const gateway of [second, first, second]) {
      const { length } = sockets
      sockets.push(await open(gateway, sessionId))
      expect(sockets.at(-1)!.session).toMatchObject({ resumed: true, message_count: length })
      await sockets.at(-1)!.turn(`turn ${length + 1}`)
    }
    for (const socket of sockets.slice(0, -1)) expect(await socket.ended()).toMatchObject({ code: 4409, error: { code: "session_replaced" } })
    const last = sockets.at(-1)!
    expect((await last.turn("five")).billing).toMatchObject({ session_total: "0.05" })
    last.send({ type: "close" })
    await last.closed
    const rows = await scene.database.sql<Array<{ message_index: number; prompt: string }>>`select message_index, prompt from orders where session_id = ${sessionId} order by message_index`
    expect(rows.map(({ prompt }) => prompt)).toEqual(["one", "turn 2", "turn 3", "turn 4", "five"])
    await expectLeft(buyer, "0.95")
  })
})

it("a gateway that a session has left, and whose copy nobody comes back to, does not close it where it went", { timeout: 60_000 }, async () => {
  const { listed, buyer, open } = await arrange()
  listed.agent.behave = echoes
  const before = await open(first)
  await before.turn("one")
  before.close()
  await before.closed
  const after = await open(second, before.session["session_id"])
  await until(async () => await first.metric("tollgate_chat_sessions_live") === 0)
  expect((await after.turn("two")).billing).toMatchObject({ session_total: "0.02" })
  after.send({ type: "close" })
  expect((await after.closed).code).toBe(1000)
  await expectLeft(buyer, "0.98")
})

describe("DELETE of a session through another gateway", { timeout: 60_000 }, () => {
  it("in the middle of its turn closes it; the turn is not charged, and its socket ends with it", async () => {
    const { listed, buyer, open } = await arrange()
    const chat = await open(first)
    const sessionId = chat.session["session_id"] as string
    chat.message("hello")
    const running = await listed.agent.next()
    running.say("begun")
    await chat.next("chunk")
    await second.ask(204, "DELETE", `/v1/sessions/${sessionId}`, { token: buyer.key })
    expect(await second.ask(200, "GET", `/v1/sessions/${sessionId}`, { token: buyer.key })).toMatchObject({ status: "closed", consumed_usd: "0.00" })
    expect(await chat.ended()).toMatchObject({ code: 4410, error: { code: "session_closed" } })
    expect(await scene.charges(buyer)).toBe(0)
    await expectLeft(buyer, "1.00")
  })

  it("or on it, however often and from both at once, closes it once", async () => {
    const { listed, buyer, open } = await arrange()
    listed.agent.behave = echoes
    const chat = await open(first)
    const sessionId = chat.session["session_id"] as string
    await chat.turn("hello")
    const statuses = await Promise.all([first, second, first, second, first, second].map(async (gateway) =>
      (await gateway.call("DELETE", `/v1/sessions/${sessionId}`, { token: buyer.key })).status))
    for (const status of statuses) expect([200, 204]).toContain(status)
    expect(statuses).toContain(204)
    expect(await chat.ended()).toMatchObject({ code: 4410, error: { code: "session_closed" } })
    expect(await scene.charges(buyer)).toBe(1)
    await expectLeft(buyer, "0.99")
  })
})

describe("after kill -9 amid chats", { timeout: 60_000 }, () => {
  it("the paid turns that were running are counted by the next gateway, once, and neither charged nor sent again; sessions without a turn and free turns are not", async () => {
    const scene = await ChatScene.set(stage)
    const [paid, free, buyer] = await Promise.all([scene.list("0.01"), scene.list("0"), scene.buyer("5.00")])
    const chats = await Promise.all([paid, paid, paid, paid, paid, free].map((listed) => scene.open(listed, buyer.key)))
    for (const chat of [chats[0]!, chats[1]!, chats[5]!]) chat.message("work", "m-1")
    const asked = await Promise.all([paid.agent.next(), paid.agent.next(), free.agent.next()])
    for (const turn of asked) turn.say("begun")
    await until(async () => (await scene.database.sql`select from calls_in_flight where calls = 2`).length === 1)
    await Promise.all([scene.gateway.kill9(), ...chats.map(({ closed }) => closed)])

    await scene.restart()
    await until(async () => await scene.gateway.metric("tollgate_calls_lost_to_crash_total") > 0)
    expect(await scene.gateway.metric("tollgate_calls_lost_to_crash_total")).toBe(2)
    const again = await scene.open(paid, buyer.key, chats[0]!.session["session_id"])
    expect(again.session).toMatchObject({ resumed: true, discontinuity: true, message_count: 0, session_total: "0.00" })
    expect([paid.agent.turns.length, free.agent.turns.length]).toEqual([2, 1])
    expect(await scene.charges(buyer)).toBe(0)
    again.message("work", "m-1")
    ;(await paid.agent.next()).end("well")
    expect(await again.next("billing")).toMatchObject({ amount_charged: "0.01", session_total: "0.01" })
    again.send({ type: "close" })
    await again.closed
    await scene.expectLeft(buyer, "4.99")
  })
})
