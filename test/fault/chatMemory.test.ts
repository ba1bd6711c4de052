/**
 * What a chat costs in memory when one side is fast and the other is not, or
 * never ends: measured on the gateway's process, which gives back what it does
 * not use before each look.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { AskedTurn } from "../support/ChatAgent.ts"
import { type Buyer, ChatScene } from "../support/ChatScene.ts"
import { until } from "../support/GatewayProcess.ts"
import { RawSocket } from "../support/RawSocket.ts"
import { restingBytes, restingEnv } from "../support/restingMemory.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

const MB = 1024 * 1024
const talks = 6

let scene: ChatScene
beforeAll(async () => {
  scene = await ChatScene.set(stage, restingEnv)
})

/** Of each talk since then; what the process has not given back yet it has some time for. */
const expectCost = (before: number, bytesMax: number): Promise<void> =>
  expect.poll(async () => (await restingBytes(scene.gateway) - before) / talks, { timeout: 10_000 }).toBeLessThanOrEqual(bytesMax)

/** Writes as fast as it is taken, until nobody takes more; answers how much was. */
const pour = (turn: AskedTurn, head: Readonly<Record<string, string>>, first: string, bytes: number): { readonly taken: () => number } => {
  const { response } = turn
  response.writeHead(200, head)
  response.write(first)
  const block = Buffer.alloc(MB, "all work and no play makes a dull agent ")
  let taken = 0
  const more = (): void => {
    while (taken < bytes && !response.destroyed) {
      taken += block.length
      if (!response.write(block)) return void response.once("drain", more)
    }
    if (!response.destroyed) response.end()
  }
  more()
  return { taken: () => taken }
}

const open = async (ticker: string, { key }: Buyer): Promise<RawSocket> => {
  const socket = await RawSocket.open(scene.gateway.port, `/v1/ws/agent/${ticker}`)
  stage.onEnd(() => socket.connection.destroy())
  socket.send({ type: "auth", token: key })
  await socket.until("session")
  return socket
}

/** Nobody writes any more: the same at some looks. */
const still = async (amount: () => number): Promise<void> => {
  for (let looks = 0, before = -1; looks < 5;) {
    const now = amount()
    looks = now === before ? looks + 1 : 0
    before = now
    await sleep(50)
  }
}

it("a client that stops reading costs at most 5 MB, whatever it goes on to send", { timeout: 120_000 }, async () => {
  // Three bytes each for the client, two in memory, and as much again that says nothing, so that what waits can't hide in the systems' buffers.
  const event = `data: ${JSON.stringify({ delta: "\u20ac".repeat(1_000), pad: "x".repeat(4_000) })}\n\n`
  const eventsOfATurn = 900
  const messages = 8
  let events = 0
  const buyer = await scene.buyer("100.00")
  const { ticker } = await scene.list("0.01", (turn) => {
    turn.response.writeHead(200, { "content-type": "text/event-stream" })
    let left = eventsOfATurn
    const more = (): void => {
      while (left-- > 0 && !turn.response.destroyed) {
        events++
        if (!turn.response.write(event)) return void turn.response.once("drain", more)
      }
      turn.end()
    }
    more()
  })
  const running = (): Promise<number> => scene.gateway.metric("tollgate_chat_turns_running")
  const stalled = async (): Promise<void> => {
    const sockets = await Promise.all(Array.from({ length: talks }, () => open(ticker, buyer)))
    for (const socket of sockets) socket.pause()
    const before = await running()
    for (let message = 0; message < messages && await running() === before; message++) {
      for (const socket of sockets) socket.send({ type: "message", prompt: "more" })
      // Until all turns are told and charged, or agents wait.
      for (let looks = 0; looks < 5 && (looks === 0 || await running() > before); looks++) await still(() => events)
    }
  }
  // What the process grows by for the first, it has grown by.
  await stalled()
  await stalled()
  const before = await restingBytes(scene.gateway)
  await stalled()
  // Of what it asks for no more is begun than it takes.
  expect(events).toBeLessThan(3 * talks * messages * eventsOfATurn)
  await expectCost(before, 5 * MB)
})

describe("an agent whose answer goes on for 256 MiB", { timeout: 60_000 }, () => {
  it.each([
    ["as one line of events", { "content-type": "text/event-stream" }, "data: ", 8],
    ["as one line of JSON lines", { "content-type": "application/x-ndjson" }, "{\"text\":\"", 8],
    ["as one JSON text", { "content-type": "application/json" }, "{\"response\":\"", 16],
    ["as text", { "content-type": "text/plain" }, "", 16]
  ])("%s is given up at its bound, costs nothing, and leaves no memory behind", async (_, head, first, mebibytesMax) => {
    const poured: Array<() => number> = []
    const { ticker } = await scene.list("0.01", (turn) => { poured.push(pour(turn, head, first, 256 * MB).taken) })
    const buyer = await scene.buyer("100.00")
    const round = async (): Promise<void> => {
      const sockets = await Promise.all(Array.from({ length: talks }, () => open(ticker, buyer)))
      for (const socket of sockets) socket.send({ type: "message", prompt: "hello" })
      await Promise.all(sockets.map(async (socket) => {
        await socket.until("error")
        expect(socket.messages().at(-1)).toMatchObject({ code: "agent_error", fatal: false })
        socket.connection.destroy()
      }))
    }
    await round()
    const before = await restingBytes(scene.gateway)
    await round()
    // What the agent's own side and the operating system had taken before it was cut off comes on top of the bound.
    for (const taken of poured) expect(taken()).toBeLessThanOrEqual(mebibytesMax * MB)
    await expectCost(before, 2 * MB)
    expect(await scene.charges(buyer)).toBe(0)
  })
})
