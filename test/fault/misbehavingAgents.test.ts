/**
 * Agents that break every rule of HTTP, behind a real gateway that charges for
 * calls. Whatever an agent sends or leaves out, its caller gets an error in the
 * dialect's words or the stream as it came, cut where the agent cut it; the
 * connection is never used again; nothing stays held; and money moves exactly
 * when an answer was passed on.
 */
import type { Socket } from "node:net"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import type { GatewayProcess, Listed, Person, Taken } from "../support/GatewayProcess.ts"
import { RawAgent, type RawRequest, answer, head, hungUp, pour } from "../support/RawAgent.ts"
import { type StageDatabase, booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const scenes = useStage(afterEach)

let gateway: GatewayProcess
let database: StageDatabase
let seller: Person
let buyer: Person
let key: string
let paidFor = 0n

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway(database.env)
  ;[seller, buyer] = await Promise.all([gateway.person(), gateway.person("10.00")])
  key = await gateway.key(buyer)
})
afterAll(async () => {
  expect(await booked(database.sql, buyer.accountId)).toEqual({ available: 10_000_000n - paidFor, reserved: 0n })
  await expectCleanBooks(database.sql)
})

/** `passedOn` resolves when the caller has the first bytes of the answer's body. */
type Behave = (request: RawRequest, passedOn: Promise<void>) => void

interface Scene {
  readonly agent: RawAgent
  readonly listed: Listed
  readonly call: () => Promise<Taken>
  /** Fails unless the agent's calls have all ended, were charged this many times, and left nothing behind. */
  readonly expectCharges: (times: number) => Promise<void>
}

const openGauges = ["tollgate_holds_open", "tollgate_upstream_calls_running", "tollgate_upstream_calls_waiting"]

const price = 10_000n

const scene = async (behave: Behave, usd = "0.01"): Promise<Scene> => {
  let passOn!: () => void
  const passedOn = new Promise<void>((resolve) => { passOn = resolve })
  const agent = await new RawAgent((asked) => behave(asked, passedOn)).listen()
  scenes.onEnd(() => agent.close())
  const listed = await gateway.list(seller, agent.url, usd)
  return {
    agent, listed,
    call: () => gateway.take(`/v1/proxy/${listed.ticker}`, key, passOn),
    expectCharges: async (times) => {
      const charged = await database.sql`select from transactions where agent_id = ${listed.id} and type = 'charge'`
      expect(charged).toHaveLength(times)
      paidFor += price * BigInt(times)
      expect(await gateway.ask(200, "GET", "/v1/credits/holds", { token: buyer.token })).toEqual([])
      for (const gauge of openGauges) expect([gauge, await gateway.metric(gauge)]).toEqual([gauge, 0])
    }
  }
}

const says = (text: string): Behave => ({ socket }) => socket.write(text, "latin1")
const saysAndCloses = (text: string): Behave => ({ socket }) => socket.end(text, "latin1")
const ok = "HTTP/1.1 200 OK\r\n"
const megabyte = "y".repeat(1024 * 1024)

const noAnswer: ReadonlyArray<readonly [string, Behave]> = [
  ["hangs up without a word", saysAndCloses("")],
  ["resets the connection", ({ socket }) => socket.resetAndDestroy()],
  ["hangs up in the middle of its status line", saysAndCloses("HTTP/1.1 20")],
  ["hangs up in the middle of its head", saysAndCloses(`${ok}content-type: text/plain\r\n`)],
  ["hangs up after the head of an answer with a length", saysAndCloses(head("content-length: 5"))],
  ["hangs up in the middle of a small answer", saysAndCloses(`${head("content-length: 5")}hel`)],
  ["hangs up after the head of a long answer", saysAndCloses(head("content-length: 100000"))],
  ["hangs up after the head of an answer in chunks", saysAndCloses(head("transfer-encoding: chunked"))],
  ["resets after the head of an answer in chunks", ({ socket }) => { socket.write(head("transfer-encoding: chunked"), () => socket.resetAndDestroy()) }],
  ["has no number for its first chunk's size", says(`${head("transfer-encoding: chunked")}zz\r\nbad\r\n`)],
  ["hangs up after it has promised to go on", saysAndCloses("HTTP/1.1 100 Continue\r\n\r\n")],
  ["speaks another protocol", says("SSH-2.0-OpenSSH_9.6\r\n\r\n")],
  ["speaks TLS", says("\x15\x03\x01\x00\x02\x02\x28\x15\x03\x01\x00\x02\x02\x28\r\n\r\n")],
  ["sends zeroes", says("\0".repeat(1024))],
  ["has no number for a status", says("HTTP/1.1 abc Fine\r\ncontent-length: 0\r\n\r\n")],
  ["has a status of two digits", says("HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n")],
  ["has a status of four digits", says("HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n")],
  ["sends a request", says("GET / HTTP/1.1\r\nhost: gateway.test\r\n\r\n")],
  ["switches protocols", says("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")],
  ["has a header without a colon", says(`${head("no colon here", "content-length: 2")}ok`)],
  ["has a header without a name", says(`${head(": value", "content-length: 2")}ok`)],
  ["has a space in a header's name", says(`${head("a name: 1", "content-length: 2")}ok`)],
  ["has a space before a header's colon", says(`${head("content-length : 2")}ok`)],
  ["has a zero byte in a header", says(`${head("x-zero: a\0b", "content-length: 2")}ok`)],
  ["has a bare return in a header", says(`${head("x-return: a\rb: c", "content-length: 2")}ok`)],
  ["sends two lengths", says(`${head("content-length: 2", "content-length: 3")}ok!`)],
  ["sends two lengths in one header", says(`${head("content-length: 2, 3")}ok!`)],
  ["sends a length and chunks", says(`${head("content-length: 2", "transfer-encoding: chunked")}2\r\nok\r\n0\r\n\r\n`)],
  ["sends chunks and a length", says(`${head("transfer-encoding: chunked", "content-length: 2")}2\r\nok\r\n0\r\n\r\n`)],
  ...["-2", "+2", "0x2", "2e0", "2 2", "2;", "two", "99999999999999999999"].map((length) =>
    [`has the length ${length}`, says(`${head(`content-length: ${length}`)}ok`)] as const),
  ["has a head of 64 MB in one header", ({ socket }) => { socket.write(`${ok}x: `); for (let i = 0; i < 64; i++) socket.write(megabyte) }],
  ["has a head of 64 MB in many headers", ({ socket }) => { socket.write(ok); for (let i = 0; i < 64; i++) socket.write("x-more: of the same\r\n".repeat(50_000)) }],
  ["has a status line of 64 MB", ({ socket }) => { socket.write("HTTP/1.1 200 "); for (let i = 0; i < 64; i++) socket.write(megabyte) }],
  ["has a head without end", ({ socket }) => { socket.write(ok); pour(socket, "x-more: of the same\r\n".repeat(1_000)) }],
  ["has a promise with a head without end", ({ socket }) => { socket.write("HTTP/1.1 103 Early Hints\r\n"); pour(socket, "link: </a>\r\n".repeat(1_000)) }]
]

describe.each([["free", "0"], ["paid", "0.01"]])("a caller of a %s agent gets the dialect's error, and pays nothing, when the agent", (_, usd) => {
  it.each(noAnswer)("%s", async (__, behave) => {
    const there = await scene(behave, usd)
    const got = await there.call()
    expect(got).toMatchObject({ status: 503, isWhole: true, headers: { "retry-after": "1", "content-type": "application/json" } })
    expect(JSON.parse(got.text)).toEqual({
      detail: `The agent ${there.listed.ticker} broke off its answer. Nothing was charged; try again in a second`, retry_after: 1
    })
    expect(got.headers).not.toHaveProperty("x-autx-cost-usd")
    await hungUp(there.agent.sockets[0]!)
    expect(there.agent.requests).toHaveLength(1)
    await there.expectCharges(0)
  })
})

const chunked = `${head("transfer-encoding: chunked")}5\r\nhello\r\n`
/** Begins well, and goes on like this when the caller has what it began with. */
const then = (beginning: string, goOn: (socket: Socket) => void): Behave => async ({ socket }, passedOn) => {
  socket.write(beginning, "latin1")
  await passedOn
  goOn(socket)
}
const long = head("content-length: 100000") + "hello".padEnd(70_000, ".")

const cutShort: ReadonlyArray<readonly [string, Behave]> = [
  ["hangs up in the middle of a long answer", then(long, (socket) => socket.end())],
  ["resets in the middle of a long answer", then(long, (socket) => socket.resetAndDestroy())],
  ["hangs up between two chunks", then(chunked, (socket) => socket.end())],
  ["hangs up in the middle of a chunk", then(chunked, (socket) => socket.end("100\r\nhalf"))],
  ["hangs up before the last chunk's end", then(chunked, (socket) => socket.end("0\r\n"))],
  ["resets between two chunks", then(chunked, (socket) => socket.resetAndDestroy())],
  ["resets an answer without a length", then(`${head("connection: close")}hello`, (socket) => socket.resetAndDestroy())],
  ["has no number for a chunk's size", then(chunked, (socket) => socket.write("zz\r\nbad\r\n"))],
  ["has a negative chunk", then(chunked, (socket) => socket.write("-1\r\nbad\r\n"))],
  ["has a chunk larger than any number", then(chunked, (socket) => socket.write("fffffffffffffffff\r\nbad\r\n"))],
  ["sends more than a chunk's size", then(chunked, (socket) => socket.write("3\r\ntoo much\r\n0\r\n\r\n"))],
  ["has trailers without end", then(chunked, (socket) => { socket.write("0\r\n"); pour(socket, "x-more: of the same\r\n".repeat(1_000)) })]
]

describe.each([["free", "0", 0], ["paid", "0.01", 1]])("a caller of a %s agent gets the answer as far as it came, cut short, when the agent", (_, usd, charges) => {
  it.each(cutShort)("%s", async (__, behave) => {
    const there = await scene(behave, usd)
    const got = await there.call()
    expect(got).toMatchObject({ status: 200, isWhole: false })
    expect(got.text).toMatch(/^hello/)
    if (charges > 0) expect(got.headers).toMatchObject({ "x-autx-cost-usd": "0.01", "x-autx-transaction-id": expect.stringMatching(/^[0-9a-f-]{36}$/) })
    await hungUp(there.agent.sockets[0]!)
    await there.expectCharges(charges)
  })
})

describe("an agent that answers what it was not asked", () => {
  const forged = answer("forged")
  /** Of 5 callers in a row each gets the answer that was made for it, or the dialect's error; never one that lay ready. */
  const expectOwnAnswers = async ({ agent, call, expectCharges }: Scene): Promise<void> => {
    let charges = 0
    for (let nth = 1; nth <= 5; nth++) {
      const got = await call()
      if (got.status === 200) expect([got.text, ++charges]).toEqual([`answer ${agent.requests.length}`, charges])
      else expect(got).toMatchObject({ status: 503, isWhole: true })
    }
    expect(charges).toBeGreaterThan(0)
    await expectCharges(charges)
  }

  it("in the same breath as its answer poisons nobody else's call", async () => {
    await expectOwnAnswers(await scene(({ socket, nth }) => socket.write(answer(`answer ${nth}`) + forged)))
  })

  it("on an idle connection is hung up on, and poisons nobody else's call", async () => {
    const there = await scene(({ socket, nth }) => socket.write(answer(`answer ${nth}`)))
    for (let nth = 1; nth <= 3; nth++) {
      expect(await there.call()).toMatchObject({ status: 200, text: `answer ${nth}` })
      const socket = there.agent.sockets[nth - 1]!
      socket.write(forged)
      await hungUp(socket)
    }
    await there.expectCharges(3)
  })

  it.each([
    ["more than its length", (nth: number) => answer(`answer ${nth}`) + "and more", 200],
    ["more than its last chunk", (nth: number) => `${head("transfer-encoding: chunked")}8\r\nanswer ${nth}\r\n0\r\n\r\nand more`, 200],
    ["a body where there is none", () => "HTTP/1.1 204 No Content\r\ncontent-length: 8\r\n\r\nand more", 204],
    ["a body after a 304", () => "HTTP/1.1 304 Not Modified\r\ncontent-length: 8\r\n\r\nand more", 304]
  ])("with %s has the rest dropped, and the next call is its own", async (_, text, status) => {
    const there = await scene(({ socket, nth }) => socket.write(text(nth)))
    for (let nth = 1; nth <= 3; nth++) {
      const got = await there.call()
      expect(got).toMatchObject({ status, isWhole: true, text: status === 200 ? `answer ${nth}` : "" })
    }
    await there.expectCharges(3)
  })
})

describe("an agent that is merely odd is passed on as it is:", () => {
  it.each<[string, Behave, object]>([
    ["a hundred headers", says(`${head(...Array.from({ length: 100 }, (_, i) => `x-h-${i}: ${i}`), "content-length: 2")}ok`), { "x-h-0": "0", "x-h-99": "99" }],
    ["promises before the answer", says(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n${answer("ok")}`), {}],
    ["no reason phrase, no length, and the end by hanging up", saysAndCloses("HTTP/1.1 200\r\n\r\nok"), {}],
    ["one byte at a time", async ({ socket }) => {
      for (const byte of `${head("transfer-encoding: chunked", "x-slow: yes")}1\r\no\r\n1;name=value\r\nk\r\n0\r\nx-trailer: 1\r\n\r\n`) {
        socket.write(byte)
        await new Promise((later) => setImmediate(later))
      }
    }, { "x-slow": "yes" }],
    ["many headers of one name", says(`${head(...Array.from({ length: 50 }, (_, i) => `x-many: ${i}`), "content-length: 2")}ok`), { "x-many": Array.from({ length: 50 }, (_, i) => i).join(", ") }]
  ])("%s", async (_, behave, headers) => {
    const there = await scene(behave)
    expect(await there.call()).toMatchObject({ status: 200, text: "ok", isWhole: true, headers })
    await there.expectCharges(1)
  })
})
