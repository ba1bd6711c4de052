/**
 * Forms that go wrong: gateways that die under them, callers who leave, stop or
 * lie, and what an upload costs in memory. Whatever happens, an order is
 * completed and charged once, or failed and refunded.
 */
import { randomBytes } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { makeGate } from "../contract/Example.ts"
import { boundary, ending, field, file, formType, part } from "../support/Form.ts"
import { type GatewayProcess, type Listed, type Person, until } from "../support/GatewayProcess.ts"
import { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { RawConnection } from "../support/RawConnection.ts"
import { type StageDatabase, booked, expectCleanBooks, useStage } from "../support/Stage.ts"
import { type UploadAnswer, Uploader } from "../support/Uploader.ts"

const stage = useStage(afterAll)
const MB = 1024 * 1024
const price = 500_000n

let database: StageDatabase
let gateway: GatewayProcess
let buyer: Person
let seller: Person
let key: string
/** It never reads, and never answers. */
let deaf: Listed & { readonly agent: LoopbackAgent }
/** It reads everything, as fast as it comes. */
let eager: Listed & { readonly agent: LoopbackAgent }

beforeAll(async () => {
  database = await stage.database()
  gateway = await stage.gateway(database.env)
  const [one, other] = await Promise.all([gateway.person("1000.00"), gateway.person()])
  buyer = one
  seller = other
  key = await gateway.key(buyer)
  deaf = await listed((_response, request) => request.pause())
  eager = await listed((response, request) => request.on("end", () => response.end("done")))
})
afterAll(() => expectCleanBooks(database.sql))

const listed = async (behave: LoopbackAgent["behave"]) => {
  const agent = await stage.agent(behave)
  return { agent, ...await gateway.list(seller, agent.url, "0.50") }
}

/** The fields, and the head of a file that goes on. */
const begun = (agentId: string): ReadonlyArray<Buffer> =>
  [field("agent_id", agentId), field("prompt", "Read this"), Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n`)]
const rest = Buffer.concat([Buffer.from("\r\n"), ending()])

const upload = (agentId: string, token = key, port = gateway.port): Uploader => {
  const uploader = new Uploader(port, token)
  stage.onEnd(() => uploader.leave())
  uploader.write(...begun(agentId))
  return uploader
}

const statusesOf = async (agentId: string): Promise<ReadonlyArray<string>> =>
  (await database.sql<Array<{ status: string }>>`select status from orders where agent_id = ${agentId} order by id`).map(({ status }) => status)
const ended = (agentId: string, count: number): Promise<void> => until(async () => {
  const statuses = await statusesOf(agentId)
  return statuses.length === count && !statuses.includes("pending")
})

describe("memory", () => {
  const uploads = 10
  const block = Buffer.alloc(MB, "all work and no play ")

  it("of an upload of 90 MB is at most 2 MB while its agent does not read", async () => {
    /** As many again cost what they cost: what the process grows by for the first of them, it has grown by. */
    const all: Array<Uploader> = []
    const grow = async (): Promise<number> => {
      const some = Array.from({ length: uploads }, () => upload(deaf.id))
      for (const each of some) void each.pour(block, 90)
      all.push(...some)
      await Promise.all(some.map((each) => each.stalled()))
      return gateway.memoryBytes()
    }
    const before = await grow()
    expect((await grow() - before) / uploads).toBeLessThanOrEqual(2 * MB)
    expect(await gateway.metric("tollgate_orders_running")).toBe(2 * uploads)
    deaf.agent.close()
    await ended(deaf.id, 2 * uploads)
    for (const each of all) each.leave()
    expect(new Set(await statusesOf(deaf.id))).toEqual(new Set(["failed"]))
  })

  it("of uploads of 90 MB does not grow with what passes, at agents that stop again and again", { timeout: 60_000 }, async () => {
    const slow = await listed((response, request) => {
      let parts = 0
      request.on("data", () => {
        if (++parts % 20 !== 0) return
        request.pause()
        setTimeout(() => request.resume(), 1)
      }).on("end", () => response.end("done"))
    })
    const [before, some] = [gateway.memoryBytes(), Array.from({ length: 3 }, () => upload(slow.id))]
    let most = 0
    const watching = setInterval(() => { most = Math.max(most, gateway.memoryBytes()) }, 20)
    const answers = await Promise.all(some.map(async (each) => {
      await each.pour(block, 90)
      return each.end(rest)
    }))
    clearInterval(watching)
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201])
    await ended(slow.id, 3)
    // A part of the 270 MB that passed, for what the garbage collector has not taken yet.
    expect(most - before).toBeLessThan(100 * MB)
  })
})

describe("a caller", () => {
  it("who leaves in the middle of a file is refunded, and the agent's call is cut", async () => {
    const cut = makeGate()
    const { id, agent } = await listed((_response, request) => request.on("close", () => { if (!request.complete) cut.open() }))
    const before = await booked(database.sql, buyer.accountId)
    const leaving = upload(id)
    leaving.write(randomBytes(100_000))
    await agent.seen(1)
    expect((await booked(database.sql, buyer.accountId)).reserved).toBe(before.reserved + price)
    leaving.leave()
    await Promise.all([cut.opened, ended(id, 1)])
    expect([await statusesOf(id), await booked(database.sql, buyer.accountId)]).toEqual([["failed"], before])
  })

  it("who is refused can't go on for ever", async () => {
    const poor = await gateway.key(await gateway.person())
    const connection = await RawConnection.open(gateway.port)
    stage.onEnd(() => connection.destroy())
    const bytes = Buffer.concat(begun(eager.id))
    connection.send(`POST /v1/orders/multipart HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer ${poor}\r\ncontent-type: ${formType()["content-type"]}\r\ncontent-length: ${90 * MB}\r\n\r\n`)
    connection.send(bytes)
    // The answer does not wait for the rest; whoever sends it all the same is hung up on.
    expect(await connection.closed()).toMatch(/^HTTP\/1\.1 402 [^]*connection: close[^]*Insufficient credits/i)
    expect(connection.socket.bytesWritten).toBeLessThan(MB)
  })

  it("who is cut at any byte, or says anything wrong, is charged for what was completed and for nothing else", { timeout: 60_000 }, async () => {
    const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)
    let state = seed
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return Math.floor(state / 2 ** 32 * below)
    }
    const someone = await gateway.person("1000.00")
    const token = await gateway.key(someone)
    const { id, agent } = await listed((response, request) => request.on("end", () => response.end("done")))
    const whole = Buffer.concat([...begun(id), randomBytes(50_000), Buffer.from("\r\n"), file({ name: "b", content: randomBytes(20_000) }), ending()])
    const outcomes = await Promise.all(Array.from({ length: 80 }, async (_, nth) => {
      const uploader = new Uploader(gateway.port, token)
      const at = random(whole.length)
      uploader.write(whole.subarray(0, at))
      if (nth % 4 === 0) return void uploader.leave()
      if (nth % 4 === 1) return void setTimeout(() => uploader.leave(), random(50))
      const wrong = nth % 4 === 2 ? Buffer.from("\r\n--\0\r\n") : Buffer.alloc(0)
      return (await uploader.end(wrong, whole.subarray(at))).status
    }))
    await until(async () => await gateway.metric("tollgate_orders_running") === 0 && await gateway.metric("tollgate_calls_under_way") === 1)
    const statuses = await statusesOf(id)
    const completed = BigInt(statuses.filter((status) => status === "completed").length)
    const created = outcomes.filter((status) => status === 201).length
    // Every one that was answered is there; one that left at its last byte may be too.
    expect([statuses.includes("pending"), completed >= BigInt(created), created >= 20, agent.asked.length <= statuses.length], `SEED=${seed}`).toEqual([false, true, true, true])
    expect(await booked(database.sql, someone.accountId), `SEED=${seed}`).toEqual({ available: 1_000_000_000n - completed * price, reserved: 0n })
  })
})

describe("a hostile form", () => {
  const head = (...lines: ReadonlyArray<string>): Buffer => Buffer.from(`--${boundary}\r\n${lines.join("\r\n")}\r\n\r\n`)
  const fields = () => [field("agent_id", eager.id), field("prompt", "Read this")]
  const many = (count: number, one: (nth: number) => Buffer) => Buffer.concat(Array.from({ length: count }, (_, nth) => one(nth)))

  /** Its answer comes although, and as soon as, the rest of 90 MB does not. */
  const wrongFromHere = (pieces: ReadonlyArray<Uint8Array>): Promise<UploadAnswer> => {
    const uploader = new Uploader(gateway.port, key, { "content-length": 90 * MB })
    stage.onEnd(() => uploader.leave())
    uploader.write(...pieces)
    return uploader.answer
  }
  const whole = (pieces: ReadonlyArray<Uint8Array>): Promise<UploadAnswer> => new Uploader(gateway.port, key).end(...pieces)

  it.each<readonly [string, number, (pieces: ReadonlyArray<Uint8Array>) => Promise<UploadAnswer>, () => ReadonlyArray<Uint8Array>]>([
    ["of nothing", 400, whole, () => []],
    ["of nothing but its end", 422, whole, () => [ending()]],
    ["without an end", 400, whole, () => fields()],
    ["that does not begin", 400, wrongFromHere, () => [Buffer.from("\r\n".repeat(5_000))]],
    ["of more than 100 fields", 422, wrongFromHere, () => [many(101, (nth) => field(`f${nth}`, "x"))]],
    ["of more than 100 fields of one name", 422, wrongFromHere, () => [many(101, () => field("prompt", "x"))]],
    ["of more than 100 parts with an empty name", 422, wrongFromHere, () => [many(101, () => field("", ""))]],
    ["with a head that does not end", 400, wrongFromHere, () => [...fields(), Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="files"; filename="${"x".repeat(9_000)}`)]],
    ["with a head of many lines", 400, wrongFromHere, () => [...fields(), head(`Content-Disposition: form-data; name="files"; filename="a"`, ...Array.from({ length: 1_000 }, (_, nth) => `x-${nth}: 1`))]],
    ["with a head that is made to be slow to read", 400, wrongFromHere, () => [...fields(), head(`Content-Disposition: form-data; name="${"\\".repeat(4_000)}`, `a: ${";".repeat(3_000)}`)]],
    ["with a boundary that does not end", 400, wrongFromHere, () => [...fields(), Buffer.from(`--${boundary}${" ".repeat(9_000)}`)]],
    ["with a prompt that does not end", 422, wrongFromHere, () => [field("agent_id", eager.id), head(`Content-Disposition: form-data; name="prompt"`), Buffer.alloc(600_000, "x")]],
    ["with an unknown field that does not end", 422, wrongFromHere, () => [...fields(), head(`Content-Disposition: form-data; name="other"`), Buffer.alloc(600_000, "x")]],
    ["with many fields that end late", 422, wrongFromHere, () => [many(20, (nth) => field(`f${nth}`, "x".repeat(30_000)))]],
    ["in another form", 422, wrongFromHere, () => [...fields(), part(`Content-Disposition: form-data; name="files"\r\nContent-Type: multipart/mixed; boundary=inner`, `--inner\r\nContent-Disposition: file; filename="a"\r\n\r\nx\r\n--inner--`)]],
    ["with fields named like JavaScript's own", 422, whole, () => [field("__proto__", "x"), field("constructor", "x"), field("agent_id", eager.id), ending()]],
    ["for an agent that is none", 404, wrongFromHere, () => [field("agent_id", "' or true --"), field("prompt", "x"), file({ name: "a", content: "x" })]]
  ])("%s is refused as soon as that is plain, and costs nothing", async (_, status, send, pieces) => {
    const [asked, before] = [eager.agent.asked.length, await booked(database.sql, buyer.accountId)]
    expect((await send(pieces())).status).toBe(status)
    expect([eager.agent.asked.length, await booked(database.sql, buyer.accountId)]).toEqual([asked, before])
  })

  it("with 90 MB behind its end is the form that it was, and what is behind it is dropped", async () => {
    const uploader = upload(eager.id)
    uploader.write(Buffer.from("content"), rest)
    await uploader.pour(Buffer.alloc(MB, `--${boundary}\r\n`), 90)
    const { status, json } = await uploader.end()
    await until(async () => (await gateway.ask(200, "GET", `/v1/orders/${json.id}`, { token: key })).status === "completed")
    expect(status).toBe(201)
  })

  it("of more than 100 MiB is refused, announced or not, and refunded", { timeout: 60_000 }, async () => {
    const before = await booked(database.sql, buyer.accountId)
    const announced = new Uploader(gateway.port, key, { "content-length": 100 * MB + 1 })
    expect((await announced.answer).status).toBe(413)
    const { id } = await listed((response, request) => request.on("end", () => response.end("done")))
    const chunked = upload(id)
    await chunked.pour(Buffer.alloc(MB), 101)
    expect((await chunked.end(rest)).status).toBe(413)
    expect([await statusesOf(id), await booked(database.sql, buyer.accountId)]).toEqual([["failed"], before])
  })
})

describe.concurrent("a gateway", () => {
  it("whose caller stops in the middle of a file answers 408, and has refunded by then", async () => {
    const { id, agent } = await listed(() => {})
    const someone = await gateway.person("1.00")
    const stopping = upload(id, await gateway.key(someone))
    stopping.write(randomBytes(100_000))
    await agent.seen(1)
    expect((await stopping.answer).status).toBe(408)
    expect([await statusesOf(id), await booked(database.sql, someone.accountId)]).toEqual([["failed"], { available: 1_000_000n, reserved: 0n }])
  })

  it("that is killed in the middle of uploads leaves them failed and refunded by the next, and sends none again", async () => {
    const own = await stage.database()
    const first = await stage.gateway(own.env)
    const [customer, owner] = await Promise.all([first.person("100.00"), first.person()])
    const token = await first.key(customer)
    const agent = await stage.agent((_response, request) => request.pause())
    const { id } = await first.list(owner, agent.url, "0.50")
    const some = Array.from({ length: 8 }, () => upload(id, token, first.port))
    for (const each of some) void each.pour(Buffer.alloc(MB), 8)
    await agent.seen(8)
    expect(await booked(own.sql, customer.accountId)).toEqual({ available: 96_000_000n, reserved: 4_000_000n })
    await first.kill9()
    await Promise.all(some.map((each) => expect(each.answer).rejects.toThrow()))

    await stage.gateway(own.env)
    await until(async () => (await own.sql`select from orders where status = 'pending'`).length === 0)
    expect(await own.sql`select status, count(*)::int from orders group by status`).toEqual([{ status: "failed", count: 8 }])
    expect([await booked(own.sql, customer.accountId), agent.asked.length]).toEqual([{ available: 100_000_000n, reserved: 0n }, 8])
    await expectCleanBooks(own.sql)
  })

  it("that is stopped lets an upload under way come to its end", async () => {
    const own = await stage.database()
    const stopping = await stage.gateway(own.env)
    const [customer, owner] = await Promise.all([stopping.person("100.00"), stopping.person()])
    const agent = await stage.agent((response, request) => request.on("end", () => response.end("done")))
    const { id } = await stopping.list(owner, agent.url, "0.50")
    const underWay = upload(id, await stopping.key(customer), stopping.port)
    await agent.seen(1)
    const stopped = stopping.stop()
    await until(async () => stopping.stderr().includes("stopping"))
    const { status } = await underWay.end(randomBytes(100_000), rest)
    await stopped
    expect([status, await own.sql`select status from orders`, await booked(own.sql, customer.accountId)]).toEqual([201, [{ status: "completed" }], { available: 99_500_000n, reserved: 0n }])
    await expectCleanBooks(own.sql)
  })
})
