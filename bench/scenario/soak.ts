/**
 * Soak: does anything grow, break or go missing while the gateway works for a
 * long time? Half an hour (SOAK_MINUTES) of a steady mixed load: paid and free
 * calls of a thousand accounts in open loops, orders, readers so slow that the
 * gateway must hold their agent back, and calls that must fail, each with the
 * status it must fail with.
 *
 * The figure is the slope of the gateway's resident memory over the second half,
 * by least squares: in the first half caches fill and the compiler works. At the
 * end no call may be open, every charge must add up and the audit must find
 * nothing, or the scenario fails.
 */
import { writeFileSync } from "node:fs"
import { type Socket, connect } from "node:net"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { type Listed, until } from "../../test/support/GatewayProcess.ts"
import type { Task, Timed } from "../programs/openLoop.ts"
import { body, largeBytes } from "../rig/agent.ts"
import { auditBooks, chargedIn } from "../rig/books.ts"
import { addCallers } from "../rig/callers.ts"
import { type BenchGateway, startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import type { Report } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"

const accounts = 1_000
const perSecond = { paid: 200, free: 400, orders: 5, failing: 10 } as const
const slowReaders = 4
const slowBytesPerSecond = 256 * 1_024
const partSeconds = 20
const sampleMs = 2_000
const priceMicros = 10_000n

export const soak = async (rig: Rig, _: Options): Promise<Report> => {
  if (process.platform !== "linux") return { figures: [], parameters: {}, missing: ["resident memory is read from /proc, which is Linux's"] }
  const minutes = Number(process.env["SOAK_MINUTES"] || 30)
  if (!(minutes > 0 && minutes <= 24 * 60)) throw new Error("SOAK_MINUTES must be a number of minutes, at most a day")
  const clients = [await rig.program("programs/openLoop"), await rig.program("programs/openLoop")] as const
  const gateway = await startGateway(rig, { billing: "paid", agentPort: clients[0].port, price: "0.01" })
  const origin = `http://127.0.0.1:${clients[0].port}`
  const agents = {
    free: await gateway.process.list(gateway.owner, `${origin}/run`, "0"),
    large: await gateway.process.list(gateway.owner, `${origin}/large`, "0"),
    failing: await gateway.process.list(gateway.owner, `${origin}/fail`, "0.01")
  }
  const keys = await addCallers(gateway.sql, accounts)
  const keysFile = join(rig.folder(), "keys")
  writeFileSync(keysFile, keys.join("\n"))

  const endMs = performance.now() + minutes * 60_000
  const isOver = (): boolean => performance.now() >= endMs
  const calls = (client: number, agent: Listed, rate: number) => openLoop(isOver, endMs, (seconds): Promise<Timed> =>
    clients[client]!.ask({ port: gateway.process.port, path: `/v1/proxy/${agent.ticker}`, keys: keysFile, body, perSecond: rate, seconds, connections: 64 } satisfies Task))
  const memory = sampleMemory(gateway, isOver)
  const [paid, free, orders, failing, slow] = await Promise.all([
    calls(0, gateway.agent, perSecond.paid),
    calls(1, agents.free, perSecond.free),
    every(1_000 / perSecond.orders, isOver, (n) => order(gateway, keys[n % keys.length]!)),
    every(1_000 / perSecond.failing, isOver, (n) => failingCall(gateway, agents.failing, keys[n % keys.length]!, n)),
    readSlowly(rig, gateway, agents.large, keys[0]!, isOver)
  ])
  const samples = await memory
  const unexpected = Object.entries({ paid, free, orders, failing, slow }).filter(([, { errors }]) => errors > 0)
  if (unexpected.length > 0) throw new Error(`answers that were not as they must be: ${JSON.stringify(Object.fromEntries(unexpected))}`)
  await settled(gateway)
  const charged = await chargedIn(gateway.sql)
  if (charged.calls !== paid.calls || charged.micros !== BigInt(paid.calls) * priceMicros) throw new Error(`${paid.calls} paid answers, but ${charged.calls} charges of ${charged.micros} µ$`)
  await auditBooks(gateway)

  return {
    figures: [
      { name: "resident memory, slope of the second half", value: slopePerHour(samples.slice(samples.length >> 1)), unit: "MiB/h" },
      { name: "resident memory at half-time", value: samples[samples.length >> 1]?.mebibytes ?? NaN, unit: "MiB" },
      { name: "resident memory at the end", value: samples.at(-1)?.mebibytes ?? NaN, unit: "MiB" },
      { name: "paid calls, each charged once, audit clean", value: paid.calls, unit: "" },
      { name: "free calls", value: free.calls, unit: "" },
      { name: "orders", value: orders.calls, unit: "" },
      { name: "calls that failed as they must", value: failing.calls, unit: "" },
      { name: `answers of ${largeBytes >> 20} MiB read slowly`, value: slow.calls, unit: "" },
      { name: "paid calls, worst p99 of a part", value: paid.worstP99Ms, unit: "ms" }
    ],
    parameters: { minutes, accounts, ...perSecond, slowReaders, slowBytesPerSecond }
  }
}

interface Counted {
  readonly calls: number
  readonly errors: number
  /** The first thing that went wrong. */
  readonly reason?: string
}

/** Part after part, because one task keeps every time it took. */
const openLoop = async (isOver: () => boolean, endMs: number, part: (seconds: number) => Promise<Timed>): Promise<Counted & { readonly worstP99Ms: number }> => {
  let [calls, errors, worstP99Ms] = [0, 0, 0]
  let reason = ""
  while (!isOver()) {
    const timed = await part(Math.max(1, Math.min(partSeconds, Math.round((endMs - performance.now()) / 1_000))))
    calls += timed.sent
    errors += timed.errors
    if (timed.errors > 0) reason ||= JSON.stringify(timed)
    worstP99Ms = Math.max(worstP99Ms, timed.p99Ms)
  }
  return { calls, errors, worstP99Ms, reason }
}

/** Starts one on time whether or not the one before has ended; `one` fails unless it went as it must. */
const every = async (gapMs: number, isOver: () => boolean, one: (n: number) => Promise<void>): Promise<Counted> => {
  let [calls, errors] = [0, 0]
  let reason = ""
  const underWay = new Set<Promise<void>>()
  for (const beganMs = performance.now(); !isOver(); calls++) {
    const call: Promise<void> = one(calls).catch((cause: unknown) => {
      errors++
      reason ||= String(cause)
    }).finally(() => underWay.delete(call))
    underWay.add(call)
    await sleep(Math.max(0, beganMs + (calls + 1) * gapMs - performance.now()))
  }
  await Promise.all(underWay)
  return { calls, errors, reason }
}

const order = (gateway: BenchGateway, token: string): Promise<void> =>
  gateway.process.ask(201, "POST", "/v1/orders/", { token, body: { agent_id: gateway.agent.ticker, prompt: "soak" } })

/** A stranger, an agent that is not there, a body that is no order, an agent that fails. */
const failingCall = (gateway: BenchGateway, failing: Listed, token: string, n: number): Promise<void> => {
  const call = (status: number, path: string, key: string) => gateway.process.ask(status, "POST", path, { token: key, body: { prompt: "soak" } })
  switch (n % 4) {
    case 0: return call(401, `/v1/proxy/${gateway.agent.ticker}`, `autx_live_${n}`)
    case 1: return call(404, "/v1/proxy/NOBODY", token)
    case 2: return call(422, "/v1/orders/", token)
    default: return call(500, `/v1/proxy/${failing.ticker}`, token)
  }
}

/** Each reads its answer a piece at a time, then asks again. */
const readSlowly = async (rig: Rig, gateway: BenchGateway, agent: Listed, token: string, isOver: () => boolean): Promise<Counted> => {
  let [calls, errors] = [0, 0]
  const head = `POST /v1/proxy/${agent.ticker} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`
  await Promise.all(Array.from({ length: slowReaders }, async () => {
    while (!isOver()) {
      const socket = connect(gateway.process.port, "127.0.0.1")
      rig.onEnd(() => socket.destroy())
      socket.write(head)
      const bytes = await drip(socket)
      calls++
      if (bytes < largeBytes) errors++
    }
  }))
  return { calls, errors }
}

/** Bytes until the other side ended. */
const drip = (socket: Socket): Promise<number> => new Promise((done) => {
  let [bytes, paused] = [0, false]
  const beganMs = performance.now()
  socket.on("data", (chunk) => {
    bytes += chunk.length
    if (paused || bytes >= largeBytes) return
    paused = true
    socket.pause()
    setTimeout(() => {
      paused = false
      socket.resume()
    }, Math.max(0, beganMs + bytes * 1_000 / slowBytesPerSecond - performance.now()))
  }).once("close", () => done(bytes)).on("error", () => {})
})

interface Sample {
  readonly hours: number
  readonly mebibytes: number
}

const sampleMemory = async (gateway: BenchGateway, isOver: () => boolean): Promise<ReadonlyArray<Sample>> => {
  const samples = new Array<Sample>()
  for (; !isOver(); await sleep(sampleMs)) {
    samples.push({ hours: performance.now() / 3_600_000, mebibytes: gateway.process.memoryBytes() / 1_024 ** 2 })
  }
  return samples
}

const slopePerHour = (samples: ReadonlyArray<Sample>): number => {
  const mean = (read: (sample: Sample) => number): number => samples.reduce((sum, sample) => sum + read(sample), 0) / samples.length
  const [hours, mebibytes] = [mean((sample) => sample.hours), mean((sample) => sample.mebibytes)]
  return mean((sample) => (sample.hours - hours) * (sample.mebibytes - mebibytes)) / mean((sample) => (sample.hours - hours) ** 2)
}

/** Orders run on after their 201; calls that were cut off end with their release. */
const settled = async (gateway: BenchGateway): Promise<void> => {
  const quietMs = performance.now() + 30_000
  await until(async () => {
    if (performance.now() > quietMs) throw new Error("calls, orders or holds were still open 30 s after the load")
    const open = await Promise.all(["tollgate_holds_open", "tollgate_orders_running", "tollgate_upstream_calls_running"].map((name) => gateway.process.metric(name)))
    return open.every((count) => count === 0)
  })
}
