/**
 * All sockets of a gateway are gone at once, as when a switch reboots, or the
 * gateway with them: everybody comes back, to the session that was theirs.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent, expectNoHolds } from "../support/ChatScene.ts"
import { until } from "../support/GatewayProcess.ts"
import { LightChat } from "../support/LightChat.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

const full = process.env["TOLLGATE_FULL"] === "1"
const sessions = full ? 15_000 : 1_500
/** That connect at the same time: a gateway listens with a queue of 512. */
const atOnce = 400

let scene: ChatScene
let listed: ListedAgent
let buyers: ReadonlyArray<Buyer>
let chats: Array<LightChat> = []

const buyerOf = (n: number): Buyer => buyers[n % buyers.length]!

/** Runs `one` for each session, some at a time. */
const forAll = async (one: (n: number) => Promise<void>): Promise<void> => {
  let next = 0
  await Promise.all(Array.from({ length: atOnce }, async () => {
    while (next < sessions) await one(next++)
  }))
}

/** All back on the sessions that they had; answers how long that took. */
const comeBack = async (discontinuity: boolean): Promise<number> => {
  const ids = chats.map(({ sessionId }) => sessionId)
  const startMs = performance.now()
  await forAll(async (n) => {
    chats[n] = await LightChat.open(scene.gateway.port, listed.ticker, buyerOf(n).key, ids[n])
  })
  const tookMs = performance.now() - startMs
  expect(chats.filter(({ sessionId }, n) => sessionId !== ids[n])).toEqual([])
  expect(chats.filter(({ frames: [session] }) => session!["resumed"] !== true || session!["discontinuity"] !== discontinuity)).toEqual([])
  return tookMs
}

/** One in a hundred has a turn, so that what came back is a session and not only a socket. */
const expectTurns = async (total: string): Promise<void> => {
  const some = chats.filter((_, n) => n % 100 === 0)
  await Promise.all(some.map(async (chat) => {
    const from = chat.frames.length
    chat.send({ type: "message", prompt: "still me" })
    expect((await chat.next("billing", from))["session_total"]).toBe(total)
  }))
}

beforeAll(async () => {
  scene = await ChatScene.set(stage, { CHAT_SESSIONS_PER_ACCOUNT: "10000", CHAT_UNAUTHENTICATED_MAX: "20000" })
  listed = await scene.list("0.01", echoes)
  buyers = await Promise.all(Array.from({ length: 10 }, () => scene.buyer("1000.00")))
  await forAll(async (n) => {
    chats[n] = await LightChat.open(scene.gateway.port, listed.ticker, buyerOf(n).key)
  })
  await expectTurns("0.01")
}, 300_000)

describe("when 1,500 sockets are dropped at once", () => {
  it("all of them are back on their sessions, which have lost nothing", { timeout: 120_000 }, async () => {
    for (const chat of chats) chat.reset()
    const tookMs = await comeBack(false)
    console.info(`${sessions} sessions resumed from memory in ${Math.round(tookMs)} ms`)
    if (full) expect(tookMs).toBeLessThan(10_000)
    expect(await scene.gateway.metric("tollgate_chat_sessions_live")).toBe(sessions)
    await expectTurns("0.02")
  })

  it("with their gateway by kill -9, all of them are back on their sessions from the database, which say that something may be gone", { timeout: 120_000 }, async () => {
    await Promise.all([scene.gateway.kill9(), ...chats.map((chat) => chat.closed())])
    await scene.restart()
    const tookMs = await comeBack(true)
    console.info(`${sessions} sessions resumed from the database in ${Math.round(tookMs)} ms`)
    if (full) expect(tookMs).toBeLessThan(10_000)
    await expectTurns("0.03")
    await forAll(async (n) => {
      chats[n]!.send({ type: "close" })
      expect(await chats[n]!.closed()).toBe("1000")
    })
    await until(async () => await scene.gateway.metric("tollgate_chat_sessions_live") === 0)
    await expectNoHolds(scene.gateway)
    for (const [n, buyer] of buyers.entries()) {
      const turns = 3 * chats.filter((_, at) => at % 100 === 0 && at % buyers.length === n).length
      await scene.expectLeft(buyer, (1_000 - turns / 100).toFixed(2))
    }
  })
})
