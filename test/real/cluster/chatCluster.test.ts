/**
 * Chat on two nodes: a session belongs to the node of its socket, whichever
 * owns its account, and whatever becomes of either it is billed to the last
 * unit.
 */
import { randomUUID } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type AskedTurn, echoes } from "../../support/ChatAgent.ts"
import { type Buyer, ChatScene, type ListedAgent, expectNoHolds } from "../../support/ChatScene.ts"
import { ChatSocket, type Frame } from "../../support/ChatSocket.ts"
import { type Cluster, type ClusterNode, startCluster } from "../../support/ClusterProcesses.ts"
import { until } from "../../support/GatewayProcess.ts"
import { useStage } from "../../support/Stage.ts"

const stage = useStage(afterAll)

let cluster: Cluster
let scene: ChatScene
let first: ClusterNode
let second: ClusterNode
beforeAll(async () => {
  cluster = await startCluster({ links: true })
  stage.onEnd(() => cluster.end())
  scene = await ChatScene.among(stage, cluster)
  ;[first, second] = cluster.nodes as [ClusterNode, ClusterNode]
})

interface Chatter {
  readonly buyer: Buyer
  readonly chat: ChatSocket
  readonly sessionId: string
}

/** While accounts change hands whoever asks is told to come back. */
const patiently = async <A>(ask: () => Promise<A>): Promise<A> => {
  let answer: { readonly is: A } | undefined
  await until(async () => (answer = await ask().then((is) => ({ is }), () => undefined)) !== undefined)
  return answer!.is
}

const open = async (node: ClusterNode, { ticker }: ListedAgent, buyer: Buyer, sessionId?: string): Promise<Chatter> => {
  const chat = await ChatSocket.open(node.gateway, ticker, buyer.key, sessionId)
  return { buyer, chat, sessionId: chat.session["session_id"] as string }
}

/** Sessions on a node, with an account that it owns and with one that another does. */
const openBoth = async (node: ClusterNode, listed: ListedAgent): Promise<ReadonlyArray<Chatter>> => {
  const found = new Map<boolean, Chatter>()
  while (found.size < 2) {
    const buyer = await patiently(() => scene.buyer("1.00"))
    const chatter = await patiently(() => open(node, listed, buyer))
    const kind = await scene.isLeased(chatter.buyer)
    if (!found.has(kind)) found.set(kind, chatter)
    else chatter.chat.send({ type: "close" })
  }
  return [...found.values()]
}

const arrange = async (node: ClusterNode, price = "0.03") => {
  scene.gateway = node.gateway
  const listed = await patiently(() => scene.list(price))
  return { listed, chatters: await openBoth(node, listed) }
}

/** Their sessions are closed, unless they were, this much is left of each dollar, and nobody holds or has leased anything. */
const expectEnd = async (chatters: ReadonlyArray<Chatter>, usd: string): Promise<void> => {
  for (const { chat } of chatters) {
    chat.send({ type: "close" })
    await chat.closed
  }
  for (const { gateway } of cluster.nodes.filter(({ isRunning }) => isRunning)) await expectNoHolds(gateway)
  for (const { buyer } of chatters) await scene.expectLeft(buyer, usd)
}

/** The turn that its agent is asked for, however often the message has to be sent. */
const asked = async (chat: ChatSocket, { agent }: ListedAgent, prompt: string): Promise<AskedTurn> => {
  const turn = agent.next()
  for (;;) {
    const from = chat.frames.length
    chat.message(prompt)
    const refused = chat.until(({ type }) => type === "error", from).then(() => undefined)
    const met = await Promise.race([turn, refused])
    refused.catch(() => {})
    if (met !== undefined) return met
  }
}

const bothOf = <A>(chatters: ReadonlyArray<Chatter>, one: (chatter: Chatter) => Promise<A>): Promise<ReadonlyArray<A>> => Promise.all(chatters.map(one))

describe("a session", { timeout: 60_000 }, () => {
  it("is billed exactly, on its account's own node and on another, longer than what it set aside at first", async () => {
    const { listed, chatters } = await arrange(first)
    listed.agent.behave = echoes
    for (let turn = 1; turn <= 8; turn++) {
      const bills = await bothOf(chatters, async ({ chat }) => (await chat.turn(`turn ${turn}`)).billing)
      for (const bill of bills) expect(bill).toMatchObject({ amount_charged: "0.03", session_total: (0.03 * turn).toFixed(2) })
    }
    await expectEnd(chatters, "0.76")
  })

  it("that spends the last of its account, on another node than the account's, is told so by a refusal for money", async () => {
    const { listed, chatters } = await arrange(first, "0.30")
    listed.agent.behave = echoes
    await bothOf(chatters, async ({ chat, buyer }) => {
      for (let turn = 1; turn <= 3; turn++) await chat.turn("again")
      chat.message("one more")
      expect(await chat.ended()).toMatchObject({ code: 4402, error: { code: "insufficient_credits" } })
      expect(await scene.charges(buyer)).toBe(3)
    })
    await bothOf(chatters, ({ sessionId, buyer }) => second.gateway.ask(204, "DELETE", `/v1/sessions/${sessionId}`, { token: buyer.key }))
    await expectEnd(chatters, "0.10")
  })

  it("loses its socket when its key is revoked on another node", async () => {
    const { chatters } = await arrange(first)
    await bothOf(chatters, async ({ buyer, chat, sessionId }) => {
      const [key] = await second.gateway.ask(200, "GET", "/v1/api-keys", { token: buyer.token })
      await second.gateway.ask(204, "DELETE", `/v1/api-keys/${key.id}`, { token: buyer.token })
      expect(await chat.ended()).toMatchObject({ code: 4401, error: { code: "auth_failed" } })
      await second.gateway.ask(204, "DELETE", `/v1/sessions/${sessionId}`, { token: buyer.token })
    })
    await expectEnd(chatters, "1.00")
  })

  it("that another node took, or whose key was revoked, while its own could hear no news ends there once it hears again", async () => {
    const { chatters } = await arrange(first)
    const [taken, revoked] = chatters as [Chatter, Chatter]
    const [key] = await second.gateway.ask(200, "GET", "/v1/api-keys", { token: revoked.buyer.token })
    first.toRedis.sever()
    await cluster.sql`update sessions set term = term + 1, node_id = ${randomUUID()} where id = ${taken.sessionId}`
    await cluster.sql`update api_keys set status = 'revoked', revoked_at = now() where id = ${key.id}`
    first.toRedis.restore()
    expect(await taken.chat.ended()).toMatchObject({ code: 4409, error: { code: "session_replaced" } })
    expect(await revoked.chat.ended()).toMatchObject({ code: 4401, error: { code: "auth_failed" } })
    await bothOf(chatters, ({ sessionId, buyer }) => patiently(() => second.gateway.ask(204, "DELETE", `/v1/sessions/${sessionId}`, { token: buyer.token })))
    await expectEnd(chatters, "1.00")
  })

  it("goes on where it is when a node joins and when one leaves, in the middle of a turn too, and is billed all the same", async () => {
    const { listed, chatters } = await arrange(first)
    const run = async (prompt: string, meanwhile: () => Promise<unknown>, total: string): Promise<void> => {
      const from = chatters.map(({ chat }) => chat.frames.length)
      const running: Array<AskedTurn> = []
      for (const { chat } of chatters) running.push(await asked(chat, listed, prompt))
      for (const turn of running) turn.say("begun")
      const isChunk = ({ type }: Frame): boolean => type === "chunk"
      await Promise.all(chatters.map(({ chat }, at) => chat.until(isChunk, from[at])))
      await meanwhile()
      const told = chatters.map(({ chat }) => chat.frames.length)
      for (const turn of running) turn.end(" and done")
      const bills = await Promise.all(chatters.map(({ chat }, at) => chat.next("billing", told[at])))
      for (const bill of bills) expect(bill).toMatchObject({ amount_charged: "0.03", session_total: total })
    }
    await run("while one joins", async () => {
      await cluster.add()
      await cluster.ready()
    }, "0.03")
    await run("while the second leaves", () => second.stop(), "0.06")
    second = cluster.nodes[2]!
    await run("when it has left", async () => {}, "0.09")
    await expectEnd(chatters, "0.91")
  })
})

describe("a session that is resumed on another node", { timeout: 60_000 }, () => {
  it("after its own was stopped says how far it came, and that nothing is gone", async () => {
    const { listed, chatters } = await arrange(first)
    listed.agent.behave = echoes
    await bothOf(chatters, ({ chat }) => chat.turn("before"))
    await first.stop()
    const again = await bothOf(chatters, async ({ chat, buyer, sessionId }) => {
      expect(await chat.ended()).toMatchObject({ code: 1001, error: { code: "server_shutdown" } })
      const there = await patiently(() => open(second, listed, buyer, sessionId))
      expect(there.chat.session).toMatchObject({ resumed: true, message_count: 1, session_total: "0.03", discontinuity: false })
      expect((await there.chat.turn("after")).billing).toMatchObject({ amount_charged: "0.03", session_total: "0.06" })
      return there
    })
    await first.start()
    await cluster.ready()
    scene.gateway = second.gateway
    await expectEnd(again, "0.94")
  })

  it("after its own was killed says what was charged, and that something may be gone; the turn that ran is free, and none that was charged is run again", async () => {
    const { listed, chatters } = await arrange(first)
    listed.agent.behave = (turn) => turn.body.prompt === "never ends" ? turn.say("begun") : echoes(turn)
    await bothOf(chatters, async ({ chat }) => {
      await chat.turn("before", "m-1")
      chat.message("never ends", "m-2")
      await chat.next("chunk", chat.frames.length)
    })
    await first.kill9()
    const again = await bothOf(chatters, async ({ buyer, sessionId }) => {
      // The account may have been the dead node's: until it is another's nobody can decide on it.
      const there = await patiently(() => open(second, listed, buyer, sessionId))
      expect(there.chat.session).toMatchObject({ resumed: true, message_count: 1, session_total: "0.03", discontinuity: true })
      expect((await there.chat.turn("before", "m-1")).billing).toMatchObject({ amount_charged: "0.03", session_total: "0.03", replayed: true })
      expect((await there.chat.turn("after", "m-3")).billing).toMatchObject({ amount_charged: "0.03", session_total: "0.06" })
      return there
    })
    expect(listed.agent.turns.filter(({ body }) => body.prompt === "before")).toHaveLength(2)
    scene.gateway = second.gateway
    await expectEnd(again, "0.94")
    await first.start()
    await cluster.ready()
  })
})
