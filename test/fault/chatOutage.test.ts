/**
 * The database is cut, away or read-only amid chats: a turn is charged exactly
 * once or not at all, the client learns which by sending the same id again, and
 * sessions live through it.
 */
import { afterAll, describe, expect, it } from "vitest"
import { type AskedTurn, echoes } from "../support/ChatAgent.ts"
import { ChatScene } from "../support/ChatScene.ts"
import type { ChatSocket, Frame } from "../support/ChatSocket.ts"
import { startCutProxy } from "../support/CutProxy.ts"
import { type GatewayProcess, until } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

const cuts = process.env["TOLLGATE_FULL"] === "1" ? 1_000 : 100

const arrange = async () => {
  const database = await stage.database()
  const proxy = await startCutProxy(database.options)
  stage.onEnd(() => proxy.close())
  const scene = await ChatScene.set(stage, { PGHOST: proxy.options.host }, database)
  const [listed, buyer] = await Promise.all([scene.list("0.01", echoes), scene.buyer("100.00")])
  return { proxy, scene, listed, buyer, chat: await scene.open(listed, buyer.key) }
}

const isReady = async (gateway: GatewayProcess): Promise<boolean> => (await gateway.call("GET", "/ready")).status === 200

/** What a message came to: its bill, or the refusal after which its session goes on. */
const outcome = async (chat: ChatSocket, prompt: string, id?: string): Promise<Frame> => {
  const from = chat.frames.length
  chat.message(prompt, id)
  return chat.until(({ type }) => type === "billing" || type === "error", from)
}

const expectNotNow = (frame: Frame): void => {
  expect(frame).toMatchObject({ type: "error", code: "internal_error", fatal: false })
  expect(frame["retry_after"]).toBeGreaterThanOrEqual(1)
}

/** Sends the same message again until it is billed. */
const insist = async (chat: ChatSocket, prompt: string, id: string): Promise<Frame> => {
  for (;;) {
    const told = await outcome(chat, prompt, id)
    if (told.type === "billing") return told
    expectNotNow(told)
  }
}

describe.concurrent("a turn whose commit loses its connection", { timeout: 240_000 }, () => {
  it("between send and acknowledgement, or before it arrives, is charged once when its id is sent again, a hundred times", async () => {
    const { proxy, scene, listed, buyer, chat } = await arrange()
    for (let n = 0; n < cuts; n++) {
      const cut = proxy.arm(n % 4 === 0 ? "beforeSend" : "beforeAnswer", `"message_id":"own-${n}"`)
      const first = await outcome(chat, `turn ${n}`, `own-${n}`)
      await cut
      if (first.type === "error") expectNotNow(first)
      const again = await insist(chat, `turn ${n}`, `own-${n}`)
      if (first.type === "billing") expect(again).toMatchObject({ order_id: first["order_id"], replayed: true })
      expect(again).toMatchObject({ amount_charged: "0.01", session_total: ((n + 1) / 100).toFixed(2) })
    }
    expect(proxy.cuts()).toBeGreaterThanOrEqual(cuts)
    const [row] = await scene.database.sql<Array<{ turns: number; ids: number; charges: number }>>`
      select count(*)::int as turns, count(distinct message_id)::int as ids, (select count(*)::int from transactions where type = 'charge') as charges from orders`
    expect(row).toEqual({ turns: cuts, ids: cuts, charges: cuts })
    expect(listed.agent.turns.length).toBeGreaterThanOrEqual(cuts)
    chat.send({ type: "close" })
    await chat.closed
    await scene.expectLeft(buyer, (100 - cuts / 100).toFixed(2))
  })

  it("and whose outcome nobody can know for long is told as unknown, and by its id as done and never run again", async () => {
    const { proxy, scene, listed, buyer, chat } = await arrange()
    const cut = proxy.arm("beforeAnswer", "\"message_id\":\"own\"").then(() => proxy.sever())
    const first = outcome(chat, "hello", "own")
    await cut
    // The database has it.
    await until(async () => await scene.charges(buyer) === 1)
    const told = await first
    expectNotNow(told)
    expect(told["id"]).toBe("own")
    expectNotNow(await outcome(chat, "hello", "own"))
    expect(chat.frames.map(({ type }) => type)).not.toContain("done")
    proxy.restore()
    await until(() => isReady(scene.gateway))
    expect(await insist(chat, "hello", "own")).toMatchObject({ replayed: true, amount_charged: "0.01", session_total: "0.01" })
    expect(listed.agent.turns).toHaveLength(1)
    expect((await chat.turn("and on", "next")).billing).toMatchObject({ session_total: "0.02" })
    expect(listed.agent.turns.at(-1)!.body.history).toEqual([{ role: "user", content: "hello" }, { role: "assistant", content: "hello" }])
    chat.send({ type: "close" })
    await chat.closed
    await scene.expectLeft(buyer, "99.98")
  })
})

describe.concurrent("amid chats the database", { timeout: 60_000 }, () => {
  it("goes away: a turn that ends meanwhile fails and costs nothing, no agent is asked in vain, sockets and sessions stay, and all of it goes on when it is back", async () => {
    const { proxy, scene, listed, buyer, chat } = await arrange()
    const free = await scene.list("0", echoes)
    const freeChat = await scene.open(free, buyer.key)
    await Promise.all([chat.turn("one", "m-1"), freeChat.turn("one")])
    let running!: (turn: AskedTurn) => void
    const asked = new Promise<AskedTurn>((met) => { running = met })
    listed.agent.behave = (turn) => {
      turn.say("begun")
      running(turn)
    }
    const from = chat.frames.length
    chat.message("two", "m-2")
    const turn = await asked
    await chat.next("chunk", from)
    proxy.sever()
    turn.end(" and done")
    expectNotNow(await chat.until(({ type }) => type === "error" || type === "billing", from))
    // What came with the end would have been told with the bill.
    expect(chat.text(from)).toBe("begun")
    await until(async () => !await isReady(scene.gateway))
    const turns = [listed, free].map(({ agent }) => agent.turns.length)
    expectNotNow(await outcome(chat, "three", "m-3"))
    expectNotNow(await outcome(freeChat, "three"))
    expect([listed, free].map(({ agent }) => agent.turns.length)).toEqual(turns)
    const stranger = await scene.connect(listed)
    stranger.send({ type: "auth", token: buyer.key })
    expect((await stranger.ended()).code).toBe(1011)
    chat.send({ type: "close" })
    expectNotNow(await chat.until(({ type }) => type === "error", chat.frames.length))

    proxy.restore()
    listed.agent.behave = echoes
    await until(() => isReady(scene.gateway))
    expect(await insist(chat, "two", "m-2")).toMatchObject({ amount_charged: "0.01", session_total: "0.02" })
    expect((await freeChat.turn("two")).billing).toMatchObject({ amount_charged: "0.00" })
    for (const socket of [chat, freeChat]) {
      socket.send({ type: "close" })
      expect((await socket.closed).code).toBe(1000)
    }
    await scene.expectLeft(buyer, "99.98")
  })

  it("becomes read-only: turns fail and cost nothing, sessions stay, and go on when it takes a write again", async () => {
    const scene = await ChatScene.set(stage)
    const [listed, buyer] = await Promise.all([scene.list("0.01", echoes), scene.buyer("1.00")])
    const chat = await scene.open(listed, buyer.key)
    await chat.turn("one", "m-1")
    const { sql, options: { database } } = scene.database
    await sql.unsafe(`alter database ${database} set default_transaction_read_only = on`)
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = ${database} and application_name in ('tollgate', 'tollgate-committer')`
    // The first finds out.
    expectNotNow(await outcome(chat, "two", "m-2"))
    await until(async () => !await isReady(scene.gateway))
    const turns = listed.agent.turns.length
    expectNotNow(await outcome(chat, "two", "m-2"))
    expect(listed.agent.turns).toHaveLength(turns)
    await sql.begin((write) => write.unsafe(`set transaction read write; alter database ${database} reset default_transaction_read_only`))
    await until(() => isReady(scene.gateway))
    expect(await insist(chat, "two", "m-2")).toMatchObject({ amount_charged: "0.01", session_total: "0.02" })
    chat.send({ type: "close" })
    expect((await chat.closed).code).toBe(1000)
    await scene.expectLeft(buyer, "0.98")
  })
})
