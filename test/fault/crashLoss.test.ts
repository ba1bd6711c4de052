/**
 * What a crash leaves unpaid is counted by whoever lives on: orders that were
 * pending, and the paid calls that the dead gateway had in flight. Their callers
 * saw their connection end and were not charged.
 */
import { describe, expect, it } from "vitest"
import { type GatewayProcess, type Person, until } from "../support/GatewayProcess.ts"
import { type StageDatabase, booked, expectCleanBooks, useStage } from "../support/Stage.ts"

const stage = useStage()

const lost = (gateway: GatewayProcess): Promise<number> => gateway.metric("tollgate_calls_lost_to_crash_total")

/** What gateways have written down: calls in flight, and how often. */
const notes = ({ sql }: StageDatabase) => sql<Array<{ calls: number; beats: bigint }>>`select calls, beats from calls_in_flight order by calls`

const scene = async (gateway: GatewayProcess) => {
  const agent = await stage.agent()
  const [buyer, seller] = await Promise.all([gateway.person("1.00"), gateway.person()])
  const { id, ticker } = await gateway.list(seller, agent.url, "0.01")
  agent.keep()
  /** Calls that stay in flight, each an outcome: its status, or "cut". */
  const calls = async (through: GatewayProcess, count: number, as: Person = buyer): Promise<ReadonlyArray<Promise<number | "cut">>> => {
    const asked = agent.asked.length
    const outcomes = Array.from({ length: count }, () => through.call("POST", `/v1/proxy/${ticker}`, { token: as.token, body: { prompt: "work" } }).then(({ status }) => status, () => "cut" as const))
    await agent.seen(asked + count)
    return outcomes
  }
  return { agent, agentId: id, buyer, calls }
}

describe("after kill -9 of the only gateway", () => {
  it("the next one counts the calls in flight and the orders it had, once, and nobody is charged", { timeout: 60_000 }, async () => {
    const database = await stage.database()
    const first = await stage.gateway(database.env)
    const { agent, agentId, buyer, calls } = await scene(first)
    const [inFlight] = await Promise.all([
      calls(first, 3),
      first.ask(201, "POST", "/v1/orders", { token: buyer.token, body: { agent_id: agentId, prompt: "work" } }),
      first.ask(201, "POST", "/v1/orders", { token: buyer.token, body: { agent_id: agentId, prompt: "work" } })
    ])
    await until(async () => (await notes(database))[0]?.calls === 3)
    await first.kill9()
    expect(await Promise.all(inFlight)).toEqual(["cut", "cut", "cut"])

    const second = await stage.gateway(database.env)
    await until(async () => await lost(second) === 5)
    expect(second.stderr()).toContain("a gateway died with paid calls in flight")
    expect(await notes(database)).toEqual([])
    await until(async () => (await database.sql`select from orders where status = 'pending'`).length === 0)
    expect(await booked(database.sql, buyer.accountId)).toEqual({ available: 1_000_000n, reserved: 0n })
    expect(new Set(agent.asked).size).toBe(agent.asked.length)
    await expectCleanBooks(database.sql)

    // A gateway that is stopped leaves nothing to count, whatever was in flight a moment ago.
    const ending = await calls(second, 1)
    await until(async () => (await notes(database)).length === 1)
    agent.release()
    await second.stop()
    expect(await Promise.all(ending)).toEqual([200])
    expect(await notes(database)).toEqual([])
  })
})

describe("after kill -9 of one of several gateways", () => {
  it("those that live count its calls once between them, and never each other's", { timeout: 60_000 }, async () => {
    const database = await stage.database()
    const [dying, living, idle] = await Promise.all([stage.gateway(database.env), stage.gateway(database.env), stage.gateway(database.env)])
    const { agent, calls, buyer } = await scene(dying)
    const other = await living.person("1.00")
    const cut = await calls(dying, 2)
    const going = await calls(living, 4, other)
    await until(async () => (await notes(database)).map(({ calls }) => calls).join() === "2,4")
    await dying.kill9()
    expect(await Promise.all(cut)).toEqual(["cut", "cut"])
    await until(async () => await lost(living) + await lost(idle) === 2)
    // Another two looks later the living one's calls are still its own.
    const [{ beats: then } = { beats: 0n }] = await notes(database)
    await until(async () => (await notes(database))[0]!.beats > then + 10n)
    agent.release()
    expect(await Promise.all(going)).toEqual([200, 200, 200, 200])
    await until(async () => (await notes(database)).length === 0)
    expect(await lost(living) + await lost(idle)).toBe(2)
    expect(await booked(database.sql, buyer.accountId)).toEqual({ available: 1_000_000n, reserved: 0n })
    expect(await booked(database.sql, other.accountId)).toEqual({ available: 960_000n, reserved: 0n })
    await expectCleanBooks(database.sql)
  })
})
