/**
 * Requests that break HTTP, against a real gateway: each is sent with a good key
 * to an agent that costs money, behind a good call on the same connection. The
 * good call is answered whole; the hostile one is refused as documented or its
 * connection is closed. Sent once more with another paid call behind it, it ends
 * the connection (with its refusal, if that was quicker), and what stands behind
 * is never served. Nobody is charged. All attacks run side by side, for some are
 * over only when the gateway's patience is.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { RawConnection } from "../support/RawConnection.ts"
import { booked, expectCleanBooks, type StageDatabase, useStage } from "../support/Stage.ts"
import type { GatewayProcess, Person } from "../support/GatewayProcess.ts"
import { type LoopbackAgent, answers } from "../support/LoopbackAgent.ts"
import { type TablePrints, chargedCalls, tablePrints } from "../support/tablePrints.ts"

/** Within this a connection that says nothing useful is closed. */
const patienceMs = 15_000
/** Within this a body that stands still is told 408, or cut. */
const bodyPatienceMs = 10_000

/** What is sent: pieces, `everyMs` apart when there are several. */
interface Attack {
  readonly pieces: ReadonlyArray<string | Uint8Array>
  readonly everyMs?: number
}
interface Outcome {
  /** What came after the good call's answer. */
  readonly answer: string
  readonly afterMs: number
}
type Expected = RegExp | "closed"

const stage = useStage(afterAll)
let database: StageDatabase
let gateway: GatewayProcess
let agent: LoopbackAgent
let caller: Person
let before: TablePrints
const outcomes = new Map<string, Promise<Outcome>>()
/** The same with a paid call behind it. */
const followed = new Map<string, Promise<Outcome>>()

/** The request line and the headers of a paid call; `lines` are the attack's own. */
let line: string
let head: string
const call = (lines: string, body = ""): string => `${line}${head}${lines}\r\n${body}`
const latin1 = (text: string): Uint8Array => Buffer.from(text, "latin1")
const once = (text: string | Uint8Array): Attack => ({ pieces: [text] })
const trickled = (first: string, piece: string, everyMs = 1_000): Attack => ({ pieces: [first, ...Array<string>(60).fill(piece)], everyMs })

/** Refused by the gateway, in its dialect's words. */
const told = (status: number, place: string): RegExp =>
  new RegExp(`^HTTP/1\\.1 ${status} [^]*\\r\\nx-request-id: [^]*\\r\\n\\r\\n\\{"detail":"${place}[^]*\\}$`)
/** Refused by the HTTP parser, before there is a request. */
const unread = (status: number): RegExp => new RegExp(`^HTTP/1\\.1 ${status} [^]*Connection: close\\r\\n\\r\\n<h1>[^]*$`)
/** The parser takes a request line that has not come whole for another protocol, or waits for the rest. */
const parserOrNothing = /^(?:HTTP\/1\.1 505 [^]*)?$/
/** The sender may notice that its connection was cut while it still sends, before it can read why. */
const toldOrCut = (...statuses: ReadonlyArray<number>): RegExp => new RegExp(`^(?:HTTP/1\\.1 (?:${statuses.join("|")}) [^]*)?$`)

const attacks: Readonly<Record<string, ReadonlyArray<readonly [name: string, attack: () => Attack, expected: Expected]>>> = {
  "a malformed request": [
    ["that is no HTTP", () => once("hello there\r\n\r\n"), unread(505)],
    ["that is TLS", () => once(Buffer.from("16030100a5010000a1030380", "hex")), unread(505)],
    ["of HTTP/1.0", () => once(call("Content-Length: 2\r\n", "{}").replace("HTTP/1.1", "HTTP/1.0")), unread(505)],
    ["of HTTP/2", () => once("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), unread(505)],
    ["with lines that end in LF alone", () => once(call("Content-Length: 2\r\n", "{}").replaceAll("\r\n", "\n")), unread(505)],
    ["with one header that ends in LF alone", () => once(call("X-A: a\nContent-Length: 0\r\n")), "closed"],
    ["with a CR inside a header", () => once(call("X-A: a\rX-B: b\r\n")), "closed"],
    ["with a header that has no colon", () => once(call("Nonsense\r\n")), "closed"],
    ["with a space before a colon", () => once(call("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")), "closed"],
    ["with a space before its first header", () => once(`${line} X: a\r\n${head}\r\n`), "closed"],
    ["with two credentials", () => once(call("Authorization: Bearer other\r\n")), told(400, "header.authorization")],
    ["with two hosts", () => once(call("Host: b\r\n")), told(400, "header.host")]
  ],
  "a request without a host": [
    ["but with other headers", () => once(call("").replace("Host: a\r\n", "")), unread(400)],
    ["and without any header", () => once(`${line}\r\n`), "closed"],
    ["whose host is empty", () => once(call("").replace("Host: a", "Host:")), told(400, "header.host")]
  ],
  "a request whose length": [
    ["is told twice", () => once(call("Content-Length: 2\r\nContent-Length: 3\r\n", "{}")), told(400, "header.content-length")],
    ["is told twice, the same", () => once(call("Content-Length: 2\r\nContent-Length: 2\r\n", "{}")), told(400, "header.content-length")],
    ["is a list", () => once(call("Content-Length: 2, 2\r\n", "{}")), unread(400)],
    ["is negative", () => once(call("Content-Length: -1\r\n", "{}")), unread(400)],
    ["has a sign", () => once(call("Content-Length: +2\r\n", "{}")), unread(400)],
    ["is hexadecimal", () => once(call("Content-Length: 0x2\r\n", "{}")), unread(400)],
    ["is empty", () => once(call("Content-Length:\r\n", "{}")), told(400, "header.content-length")],
    ["is beyond all numbers", () => once(call("Content-Length: 99999999999999999999\r\n", "{}")), unread(400)],
    ["is told beside chunks", () => once(call("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")), unread(400)],
    ["is told after chunks", () => once(call("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n")), unread(400)],
    ["is hidden by another encoding", () => once(call("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")), told(400, "header.transfer-encoding")],
    ["is hidden by a misspelt encoding", () => once(call("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")), told(400, "header.transfer-encoding")],
    ["is hidden by two encodings", () => once(call("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n")), told(400, "header.transfer-encoding")]
  ],
  "a chunk": [
    ["without a length", () => once(call("Transfer-Encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n")), unread(400)],
    ["of negative length", () => once(call("Transfer-Encoding: chunked\r\n", "-2\r\n{}\r\n0\r\n\r\n")), unread(400)],
    ["longer than all numbers", () => once(call("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n{}\r\n0\r\n\r\n")), unread(400)]
  ],
  "a folded header": [
    ["by a space", () => once(call("X-A: a\r\n b\r\n")), "closed"],
    ["by a tab", () => once(call("X-A: a\r\n\tb\r\n")), "closed"],
    ["that would be an encoding", () => once(call("Transfer-Encoding:\r\n chunked\r\nContent-Length: 2\r\n", "{}")), "closed"]
  ],
  "a header with": [
    ["NUL in its value", () => once(call("X-A: a\0b\r\n")), "closed"],
    ["NUL in its name", () => once(call("X\0A: a\r\n")), "closed"],
    ["another control character", () => once(call("X-A: a\x01\x7f\r\n")), "closed"],
    ["a name beyond ASCII", () => once(latin1(call("X-\u00e9: a\r\n"))), "closed"],
    ["a space of Latin-1 in its name", () => once(latin1(call("X\u00a0A: a\r\n"))), "closed"]
  ],
  "an oversized": [
    ["URL of 9 kB", () => once(call("").replace(" HTTP/", `?q=${"a".repeat(9_000)} HTTP/`)), told(400, "path")],
    ["URL of 100 kB", () => once(call("").replace(" HTTP/", `?q=${"a".repeat(100_000)} HTTP/`)), toldOrCut(400, 431, 505)],
    ["header of 30 kB", () => once(call(`X-A: ${"a".repeat(30_000)}\r\n`)), told(400, "header: At most")],
    ["header of 30 kB in two pieces", () => ({ pieces: [`${line}${head}X-A: ${"a".repeat(15_000)}`, `${"a".repeat(15_000)}\r\n\r\n`], everyMs: 200 }), toldOrCut(400, 431)],
    ["header of 1 MB", () => once(call(`X-A: ${"a".repeat(1_000_000)}\r\n`)), toldOrCut(431)],
    ["head of 90 headers", () => once(call(Array.from({ length: 90 }, (_, i) => `X-${i}: ${"a".repeat(200)}\r\n`).join(""))), told(400, "header: At most")],
    ["head of 200 headers", () => once(call(Array.from({ length: 200 }, (_, i) => `X-${i}: a\r\n`).join(""))), "closed"],
    ["body, announced", () => once(call(`Content-Length: ${100 * 1024 * 1024 + 1}\r\n`)), told(413, "The body is too large")],
    ["body of an order, in chunks", () => once(order("Transfer-Encoding: chunked\r\n", `100001\r\n${"a".repeat(0x100001)}\r\n0\r\n\r\n`)), toldOrCut(413)]
  ],
  "a truncated": [
    ["head", () => once(`${line}Host: a\r\nAuthoriz`), "closed"],
    ["request line", () => once(line.slice(0, 12)), parserOrNothing],
    ["connection: nothing but line ends", () => once("\r\n\r\n"), "closed"],
    ["body", () => once(call("Content-Length: 10\r\n", "{")), told(408, "The body did not arrive in time")],
    ["long body that streams", () => once(call("Content-Length: 1000000\r\n", "{")), told(408, "The body did not arrive in time")],
    ["body of an order", () => once(order("Content-Length: 100\r\n", "{")), told(408, "The body did not arrive in time")],
    ["chunk", () => once(call("Transfer-Encoding: chunked\r\n", "5\r\n{")), told(408, "The body did not arrive in time")]
  ],
  "a slow": [
    ["request line, a byte a second", () => trickled("G", "E"), parserOrNothing],
    ["head, a byte a second", () => trickled(`${line}Host: a\r\nX-A: `, "a"), "closed"],
    ["head, two headers a second", () => trickled(`${line}Host: a\r\n`, "X-A: a\r\n", 500), "closed"],
    ["body, a byte a second", () => trickled(call("Content-Length: 100\r\n", "{"), " "), "closed"],
    ["body of an order, a byte a second", () => trickled(order("Content-Length: 100\r\n", "{"), " "), "closed"],
    ["chunk after chunk, one a second", () => trickled(call("Transfer-Encoding: chunked\r\n"), "1\r\na\r\n"), "closed"],
    ["length of a chunk, a digit a second", () => trickled(call("Transfer-Encoding: chunked\r\n"), "0"), told(408, "The body did not arrive in time")],
    ["long body, below what the parser takes for alive", () => trickled(call("Content-Length: 1000000\r\n", "{"), "a".repeat(2_000), 500), "closed"]
  ]
}
const order = (lines: string, body: string): string => `POST /v1/orders HTTP/1.1\r\n${head}${lines}\r\n${body}`
const waitsForBody = /^(?:body|long body that|chunk$)/
const answersIn = (text: string): number => text.match(/^HTTP\/1\.1 /gm)?.length ?? 0

/** A good call, then the attack, on one connection; until it is closed. */
const run = async ({ pieces, everyMs }: Attack, behind?: string): Promise<Outcome> => {
  const connection = await RawConnection.open(gateway.port)
  connection.send(`GET /v1/credits/balance HTTP/1.1\r\n${head}\r\n`)
  await connection.until(({ text }) => text.includes('"available_usdc":"10.00"'))
  const { length } = connection.text
  const beganAt = performance.now()
  const rest = [...pieces]
  connection.send(rest.shift()!)
  const sending = setInterval(() => {
    const piece = rest.shift()
    if (piece !== undefined && !connection.isClosed) connection.send(piece)
  }, everyMs ?? 1_000)
  if (behind !== undefined) connection.send(behind)
  await connection.closed()
  clearInterval(sending)
  return { answer: connection.text.slice(length), afterMs: performance.now() - beganAt }
}

beforeAll(async () => {
  database = await stage.database()
  agent = await stage.agent((response, request) => request.on("end", () => answers("done")(response, request)))
  gateway = await stage.gateway(database.env)
  const { ticker } = await gateway.list(await gateway.person(), agent.url, "0.50")
  caller = await gateway.person("10.00")
  const key = await gateway.key(caller)
  line = `POST /v1/proxy/${ticker} HTTP/1.1\r\n`
  head = `Host: a\r\nAuthorization: Bearer ${key}\r\n`
  before = await tablePrints(database.sql)
  for (const [group, cases] of Object.entries(attacks)) {
    for (const [name, attack] of cases) {
      outcomes.set(`${group} ${name}`, run(attack()))
      // What is unfinished would swallow the call behind it, and behind a well-formed one that is only too long it may be served.
      if (attack().everyMs !== undefined || group === "a truncated" || name.startsWith("body")) continue
      followed.set(`${group} ${name}`, run(attack(), call("Content-Length: 2\r\n", "{}")))
    }
  }
})

for (const [group, cases] of Object.entries(attacks)) {
  describe(group, () => {
    it.each(cases.map(([name, , expected]) => [name, expected] as const))("%s", async (name, expected) => {
      const { answer, afterMs } = await outcomes.get(`${group} ${name}`)!
      expect(answer).toMatch(expected === "closed" ? /^$/ : expected)
      expect(answersIn(answer)).toBeLessThanOrEqual(1)
      expect(afterMs).toBeLessThan(group === "a truncated" && waitsForBody.test(name) ? bodyPatienceMs : patienceMs)
      const more = await followed.get(`${group} ${name}`)
      if (more === undefined || more.answer === "") return
      expect(more.answer).toMatch(expected === "closed" ? /^$/ : expected)
      expect(answersIn(more.answer)).toBe(1)
    })
  })
}

it("of all of these nothing stays: no row, no hold, no charge, no call under way; and the gateway serves on", async () => {
  await Promise.all([...outcomes.values(), ...followed.values()])
  expect(await tablePrints(database.sql)).toEqual(before)
  expect(await chargedCalls(database.sql)).toBe(0)
  expect(await booked(database.sql, caller.accountId)).toEqual({ available: 10_000_000n, reserved: 0n })
  expect(await gateway.balance(caller)).toEqual({ balance_usd: "10.00", reserved_usd: "0.00" })
  expect([await gateway.metric("tollgate_holds_open"), await gateway.metric("tollgate_calls_under_way")]).toEqual([0, 1])
  await expectCleanBooks(database.sql)
  const reply = await gateway.call("POST", line.split(" ")[1]!, { token: caller.token, body: {} })
  expect([reply.status, reply.text, reply.headers["x-autx-balance-usd"]]).toEqual([200, "done", "9.50"])
  expect(gateway.stderr()).not.toContain("defect")
})
