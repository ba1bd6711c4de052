/**
 * What a stream costs in memory when one side is fast and the other is not:
 * measured on the gateway's process, with many such streams at once, so that
 * what the process itself grows by in the course of work is a small part of it.
 */
import { createHash } from "node:crypto"
import { setTimeout as sleep } from "node:timers/promises"
import type { Socket } from "node:net"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type GatewayProcess, type Person, until } from "../support/GatewayProcess.ts"
import { RawAgent, type RawRequest, head } from "../support/RawAgent.ts"
import { RawConnection } from "../support/RawConnection.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
const scenes = useStage((end) => afterEach(async () => {
  await end()
  // Whoever had stopped has left.
  for (const gauge of ["tollgate_upstream_calls_running", "tollgate_holds_open"]) await until(async () => await gateway.metric(gauge) === 0)
}))

const MB = 1024 * 1024
const streams = 20
const bytesPerStreamMax = 2 * MB
const total = 100 * MB
const block = Buffer.alloc(MB, "all work and no play ")

let gateway: GatewayProcess
let database: StageDatabase
let seller: Person
let key: string

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway(database.env)
  const [owner, buyer] = await Promise.all([gateway.person(), gateway.person("10.00")])
  seller = owner
  key = await gateway.key(buyer)
})
afterAll(() => expectCleanBooks(database.sql))

const listed = async (behave: (request: RawRequest) => void) => {
  const agent = await new RawAgent(behave).listen()
  scenes.onEnd(() => agent.close())
  return { agent, ...await gateway.list(seller, agent.url, "0.01") }
}

/** The whole of it, as fast as it is taken. */
const sendAll = (socket: Socket, framed: boolean): void => {
  let left = total / block.length
  const size = Buffer.from(`${block.length.toString(16)}\r\n`)
  const more = (): void => {
    while (left-- > 0 && !socket.destroyed) {
      if (framed) socket.write(size)
      const taken = socket.write(block)
      if (framed) socket.write("\r\n")
      if (!taken) return void socket.once("drain", more)
    }
    if (framed) socket.write("0\r\n\r\n")
  }
  more()
}

const request = (ticker: string, length: number): string =>
  `POST /v1/proxy/${ticker} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${key}\r\ncontent-type: text/plain\r\ncontent-length: ${length}\r\n\r\n`

/** Nothing has moved on any of these sockets for a while: everything between the two sides is full. */
const stalled = async (sockets: ReadonlyArray<Socket>): Promise<void> => {
  let still = 0
  for (let before = -1; still < 5;) {
    const now = sockets.reduce((sum, socket) => sum + socket.bytesWritten - socket.writableLength, 0)
    still = now === before ? still + 1 : 0
    before = now
    await sleep(50)
  }
  for (const socket of sockets) expect(socket.writableLength).toBeGreaterThan(0)
}

/**
 * What each of `streams` more costs a gateway that has as many open already:
 * what the process grows by for the first of them, it has grown by, and nothing
 * of that was given back for the others to use.
 */
const costOf = async (open: (connection: RawConnection) => void, stall: (connections: ReadonlyArray<RawConnection>) => Promise<void>): Promise<number> => {
  const grow = async (): Promise<number> => {
    const connections = await Promise.all(Array.from({ length: streams }, () => RawConnection.open(gateway.port)))
    for (const connection of connections) {
      scenes.onEnd(() => connection.destroy())
      connection.countOnly()
      open(connection)
    }
    await stall(connections)
    return gateway.memoryBytes()
  }
  const before = await grow()
  return (await grow() - before) / streams
}

const framings: ReadonlyArray<readonly [string, string, boolean]> = [["with a length", `content-length: ${total}`, false], ["in chunks", "transfer-encoding: chunked", true]]
const gives = (framing: string, framed: boolean) => listed(({ socket }) => {
  socket.write(head(framing))
  sendAll(socket, framed)
})

describe.each(framings)("an answer of 100 MB %s", (_, framing, framed) => {
  it("costs at most 2 MB of memory while its reader has stopped", async () => {
    const { agent, ticker } = await gives(framing, framed)
    let known = 0
    const cost = await costOf((reader) => {
      reader.socket.pause()
      reader.send(request(ticker, 0))
    }, async () => {
      await until(async () => agent.sockets.length === known + streams)
      await stalled(agent.sockets.slice(known))
      known += streams
    })
    expect(cost).toBeLessThanOrEqual(bytesPerStreamMax)
  })

  it("costs at most 2 MB of memory while its reader stops again and again", async () => {
    const { agent, ticker } = await gives(framing, framed)
    let known = 0
    const cost = await costOf((reader) => reader.send(request(ticker, 0)), async (readers) => {
      await until(async () => agent.sockets.length === known + streams)
      for (let upTo = 2 * MB; upTo <= 10 * MB; upTo += 2 * MB) {
        await Promise.all(readers.map(async (reader) => {
          reader.socket.resume()
          await reader.until(({ bytes }) => bytes >= upTo)
          reader.socket.pause()
        }))
        await sleep(20)
      }
      await stalled(agent.sockets.slice(known))
      known += streams
    })
    expect(cost).toBeLessThanOrEqual(bytesPerStreamMax)
  })
})

describe("an upload of 100 MB", () => {
  it("costs at most 2 MB of memory while its agent does not read", async () => {
    const { ticker } = await listed(({ socket }) => socket.pause())
    const cost = await costOf((writer) => {
      writer.send(request(ticker, total))
      sendAll(writer.socket, false)
    }, (writers) => stalled(writers.map(({ socket }) => socket)))
    expect(cost).toBeLessThanOrEqual(bytesPerStreamMax)
  })
})

describe.each(framings)("an answer of 100 MB %s, taken at once,", (_, framing, framed) => {
  it("passes byte by byte, charged once", async () => {
    const { ticker, id } = await gives(framing, framed)
    const answer = await fetch(`${gateway.url}/v1/proxy/${ticker}`, { method: "POST", headers: { authorization: `Bearer ${key}` } })
    expect(answer.status).toBe(200)
    const sum = createHash("sha256")
    let bytes = 0
    for await (const part of answer.body!) {
      sum.update(part)
      bytes += part.length
    }
    const expected = createHash("sha256")
    for (let i = 0; i < total / block.length; i++) expected.update(block)
    expect([bytes, sum.digest("hex")]).toEqual([total, expected.digest("hex")])
    expect(await database.sql`select from transactions where agent_id = ${id} and type = 'charge'`).toHaveLength(1)
  })
})
