/**
 * Open holds are calls in flight, at every moment: the gauge, the list that the
 * account's owner sees, and what the balance lacks are one number, however calls
 * begin and end.
 */
import { expect, it } from "vitest"
import { until } from "../support/GatewayProcess.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage()

it("open holds equal the calls in flight while these are answered, fail, are reset and are left by their callers", async () => {
  const { env } = await stage.database()
  const [gateway, agent] = await Promise.all([stage.gateway(env), stage.agent()])
  const [buyer, seller] = await Promise.all([gateway.person("10.00"), gateway.person()])
  const { ticker } = await gateway.list(seller, agent.url, "0.01")
  const path = `/v1/proxy/${ticker}`
  const expectOpen = async (count: number, charged: number): Promise<void> => {
    await until(async () => await gateway.metric("tollgate_upstream_calls_running") === count)
    await until(async () => await gateway.metric("tollgate_holds_open") === count)
    expect(await gateway.ask(200, "GET", "/v1/credits/holds", { token: buyer.token })).toHaveLength(count)
    expect(await gateway.balance(buyer)).toEqual({ balance_usd: (10 - 0.01 * (count + charged)).toFixed(2), reserved_usd: (0.01 * count).toFixed(2) })
  }

  /** Calls that wait for their agent, but for those that will leave. */
  const open: Array<(how: "answer" | "fail" | "reset") => void> = []
  agent.behave = (response, { headers }) => headers["x-leaves"] === undefined && open.push((how) => {
    if (how === "reset") return void response.socket?.resetAndDestroy()
    response.writeHead(how === "answer" ? 200 : 500, { "content-length": 0 }).end()
  })
  const leaving = Array.from({ length: 5 }, () => new AbortController())
  const calls = Array.from({ length: 20 }, (_, nth) =>
    gateway.call("POST", path, { token: buyer.token, body: {}, ...(nth < 5 ? { signal: leaving[nth]!.signal, headers: { "x-leaves": "yes" } } : {}) }).then(({ status }) => status, () => "left" as const))
  await agent.seen(20)
  await expectOpen(20, 0)

  let charged = 0
  for (const how of ["answer", "fail", "answer", "reset"] as const) {
    for (let i = 0; i < 3; i++) open.pop()!(how)
    if (how === "answer") charged += 3
    await expectOpen(open.length + leaving.length, charged)
  }
  for (const each of leaving) each.abort()
  await expectOpen(open.length, charged)
  charged += open.length
  for (const end of open) end("answer")
  const outcomes = await Promise.all(calls)
  expect([outcomes.filter((outcome) => outcome === 200).length, outcomes.filter((outcome) => outcome === "left").length]).toEqual([charged, 5])
  await expectOpen(0, charged)
})
