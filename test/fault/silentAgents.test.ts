/**
 * Agents that take their time, behind a real gateway whose clock is hurried
 * (`support/hurry.mjs`): it waits minutes for an answer, and so would the test.
 * All of them are asked first, then time begins to run.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { GatewayProcess, Person, Taken } from "../support/GatewayProcess.ts"
import { RawAgent, type RawRequest, drip, head, hungUp } from "../support/RawAgent.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

/** A second of the hurried gateway. */
const secondMs = 25
const chunk = "5\r\nhello\r\n"
const chunked = head("transfer-encoding: chunked") + chunk

type Behave = (request: RawRequest) => void

const neverAnswers: Readonly<Record<string, Behave>> = {
  "never answers": () => {},
  "answers with the beginning of a head": ({ socket }) => socket.write("HTTP/1.1 200 OK\r\ncontent-type: te"),
  "has a head that comes a byte a second": ({ socket }) => {
    socket.write("HTTP/1.1 200 OK\r\nx-slow: ")
    drip(socket, "y", secondMs)
  },
  "has a status line without end": ({ socket }) => {
    socket.write("HTTP/1.1 200 ")
    drip(socket, "y".repeat(64 * 1024), 5)
  },
  "goes on promising": ({ socket }) => drip(socket, "HTTP/1.1 102 Processing\r\n\r\n", secondMs),
  "goes on promising as fast as it can": ({ socket }) => drip(socket, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1_000), 5),
  "falls silent in the middle of a small answer": ({ socket }) => socket.write(`${head("content-length: 100")}half`)
}

const neverEnds: Readonly<Record<string, Behave>> = {
  "falls silent in the middle of an answer": ({ socket }) => socket.write(chunked),
  "falls silent in the middle of a chunk": ({ socket }) => socket.write(`${chunked}100\r\nhello`),
  "has a chunk whose size does not end": ({ socket }) => {
    socket.write(`${chunked}5;name=`)
    drip(socket, "y".repeat(1024), secondMs)
  },
  "sends a chunk a second for ever": ({ socket }) => {
    socket.write(chunked)
    drip(socket, chunk, secondMs)
  },
  "sends for ever, and fast": ({ socket }) => {
    socket.write(chunked)
    drip(socket, `1000\r\n${"hello ".repeat(1_000).slice(0, 0x1000)}\r\n`.repeat(16), 5)
  }
}

/** 100 bytes in 100 seconds, longer than any silence may be. */
const slow = "slowly, ".repeat(12).padEnd(100, ".")
const answersSlowly: Behave = async ({ socket }) => {
  socket.write(`${head("transfer-encoding: chunked")}1\r\n.\r\n`)
  await hurries
  for (const byte of slow) {
    socket.write(`1\r\n${byte}\r\n`)
    await sleep(secondMs)
  }
  socket.write("0\r\n\r\n")
}

let hurry!: () => void
const hurries = new Promise<void>((resolve) => { hurry = resolve })

let gateway: GatewayProcess
let database: StageDatabase
let buyer: Person
let key: string
/** By the agent's behaviour. */
const calls = new Map<string, { readonly ticker: string; readonly agentId: string; readonly agent: RawAgent; readonly taken: Promise<Taken> }>()

const begin = async (title: string, behave: Behave, seller: Person, untilBytes: boolean): Promise<void> => {
  const agent = await new RawAgent(behave).listen()
  stage.onEnd(() => agent.close())
  const { id, ticker } = await gateway.list(seller, agent.url, "0.01")
  await new Promise<void>((begun) => {
    const taken = gateway.take(`/v1/proxy/${ticker}`, key, begun)
    calls.set(title, { ticker, agentId: id, agent, taken })
    if (!untilBytes) void agent.seen(1).then(begun)
  })
}

const expectCharges = async (agentId: string, times: number): Promise<void> => {
  expect(await database.sql`select from transactions where agent_id = ${agentId} and type = 'charge'`).toHaveLength(times)
}

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway({ ...database.env, NODE_OPTIONS: "--import ./test/support/hurry.mjs" })
  const [seller, person] = await Promise.all([gateway.person(), gateway.person("1.00")])
  buyer = person
  key = await gateway.key(buyer)
  await Promise.all([
    ...Object.entries(neverAnswers).map(([title, behave]) => begin(title, behave, seller, false)),
    ...Object.entries(neverEnds).map(([title, behave]) => begin(title, behave, seller, true)),
    begin("slowly", answersSlowly, seller, true)
  ])
  // Who has bytes of an answer was charged for it: no commit is hurried.
  gateway.signal("SIGUSR2")
  hurry()
})

describe("a caller gets the dialect's error, and pays nothing, when the agent", () => {
  it.each(Object.keys(neverAnswers))("%s", async (title) => {
    const { ticker, agentId, agent, taken } = calls.get(title)!
    const got = await taken
    expect(got).toMatchObject({ status: 503, isWhole: true, headers: { "retry-after": "1", "content-type": "application/json" } })
    expect(JSON.parse(got.text)).toEqual({
      detail: expect.stringMatching(`^The agent ${ticker} (did not answer in time|broke off its answer)\\. Nothing was charged; try again in a second$`), retry_after: 1
    })
    await hungUp(agent.sockets[0]!)
    expect(agent.requests).toHaveLength(1)
    await expectCharges(agentId, 0)
  })
})

describe("a caller gets the answer as far as it came, cut short, and pays for it once, when the agent", () => {
  it.each(Object.keys(neverEnds))("%s", async (title) => {
    const { agentId, agent, taken } = calls.get(title)!
    const got = await taken
    expect(got).toMatchObject({ status: 200, isWhole: false, headers: { "x-autx-cost-usd": "0.01" } })
    expect(got.text).toMatch(/^hello/)
    await hungUp(agent.sockets[0]!)
    await expectCharges(agentId, 1)
  })
})

describe("an agent that sends a byte a second", () => {
  it("is waited for as long as it goes on", async () => {
    const { agentId, taken } = calls.get("slowly")!
    expect(await taken).toMatchObject({ status: 200, isWhole: true, text: `.${slow}` })
    await expectCharges(agentId, 1)
  })
})

describe("afterwards", () => {
  it("nothing is held, nothing runs, and the books are clean", async () => {
    await Promise.all(Array.from(calls.values(), ({ taken }) => taken))
    expect(await gateway.ask(200, "GET", "/v1/credits/holds", { token: buyer.token })).toEqual([])
    for (const gauge of ["tollgate_holds_open", "tollgate_upstream_calls_running"]) expect([gauge, await gateway.metric(gauge)]).toEqual([gauge, 0])
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: "0.94", reserved_usd: "0.00" })
    await expectCleanBooks(database.sql)
  })
})
