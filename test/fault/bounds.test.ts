/**
 * A quarter of a gigabyte without a line's end, in every place where somebody
 * else decides how much comes: what the gateway keeps of it has a bound.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type GatewayProcess, type Person, until } from "../support/GatewayProcess.ts"
import { RawAgent, head } from "../support/RawAgent.ts"
import { RawConnection } from "../support/RawConnection.ts"
import { type StageDatabase, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

const MiB = 1024 * 1024
const total = 256 * MiB
/** A fraction of what comes; most of it is the process's own growth in the course of work. */
const growthMax = 64 * MiB
const block = Buffer.alloc(MiB, "no end of line ")

let gateway: GatewayProcess
let database: StageDatabase
let seller: Person
let buyer: Person

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway(database.env)
  ;[seller, buyer] = await Promise.all([gateway.person(), gateway.person("10.00")])
})
afterAll(() => expectCleanBooks(database.sql))

/** Writes all of it, each block within `frame`, unless the other side hangs up before. */
const sendAll = (write: (bytes: Uint8Array) => boolean, drained: (again: () => void) => void, isOpen: () => boolean, frame: (bytes: Buffer) => Buffer = (bytes) => bytes): void => {
  const framed = frame(block)
  let left = total / block.length
  const more = (): void => {
    while (left-- > 0 && isOpen()) if (!write(framed)) return drained(more)
  }
  more()
}
const chunk = (bytes: Buffer): Buffer => Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from("\r\n")])

const endless = async () => {
  const agent = await new RawAgent(({ socket }) => {
    socket.write(head("transfer-encoding: chunked"))
    sendAll((bytes) => socket.write(bytes), (again) => socket.once("drain", again), () => !socket.destroyed, chunk)
  }).listen()
  stage.onEnd(() => agent.close())
  return agent
}

describe("256 MiB without a line's end", () => {
  it("as an order's answer are given up at its bound, the order fails and is refunded", async () => {
    const agent = await endless()
    const { id } = await gateway.list(seller, agent.url, "0.01")
    const before = gateway.memoryBytes()
    const order = await gateway.ask(201, "POST", "/v1/orders", { token: buyer.token, body: { agent_id: id, prompt: "work" } })
    const look = () => gateway.ask(200, "GET", `/v1/orders/${order.id}`, { token: buyer.token })
    await until(async () => (await look()).status !== "pending")
    expect(await look()).toMatchObject({ status: "failed" })
    expect(gateway.memoryBytes() - before).toBeLessThanOrEqual(growthMax)
    expect(agent.sockets[0]!.bytesWritten).toBeLessThan(total / 2)
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: "10.00", reserved_usd: "0.00" })
  })

  it.each([["a call", "/v1/proxy/"], ["a management call", "/v1/orders"]])("as the body of %s are refused", async (_, path) => {
    const agent = await stage.agent(() => {})
    const { ticker } = await gateway.list(seller, agent.url, "0.01")
    const refusals = 'tollgate_refusals_total\\{tag="BodyTooLarge"\\}'
    const [before, refusedBefore] = [gateway.memoryBytes(), await gateway.metric(refusals) || 0]
    const caller = await RawConnection.open(gateway.port)
    const { socket } = caller
    const target = path === "/v1/proxy/" ? path + ticker : path
    caller.send(`POST ${target} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${buyer.token}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n`)
    sendAll((bytes) => socket.write(bytes), (again) => socket.once("drain", again), () => !socket.destroyed && caller.bytes === 0, chunk)
    // The answer may be lost to a caller that goes on sending into a closed connection.
    expect(await caller.closed()).toMatch(/^$|^HTTP\/1\.1 413 /)
    expect(await gateway.metric(refusals)).toBe(refusedBefore + 1)
    expect(socket.bytesWritten).toBeLessThan(total)
    expect(gateway.memoryBytes() - before).toBeLessThanOrEqual(growthMax)
    await until(async () => await gateway.metric("tollgate_holds_open") === 0)
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: "10.00", reserved_usd: "0.00" })
  })
})
