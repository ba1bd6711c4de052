/** What the log of a real gateway holds after people have used it at the most talkative level. */
import { afterAll, describe, expect, it } from "vitest"
import { answers } from "../support/LoopbackAgent.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)

describe("the log", () => {
  it("is JSON with the request id of every call, and never holds a credential or a body", async () => {
    const database = await stage.database()
    const gateway = await stage.gateway({ ...database.env, LOG_LEVEL: "trace" })
    const agent = await stage.agent(answers("the agent's secret answer", 500))
    const person = await gateway.person("1.00")
    const listed = await gateway.list(await gateway.person(), agent.url, "0.01")
    const key = await gateway.key(person)
    const secrets = { password: "a password like no other", prompt: "a prompt like no other" }
    const replies = [
      await gateway.call("POST", "/v1/auth/login", { body: { email: "nobody@example.com", password: secrets.password } }),
      await gateway.call("POST", `/v1/proxy/${listed.ticker}`, { token: key, body: { prompt: secrets.prompt } }),
      await gateway.call("POST", "/v1/orders/", { token: key, body: { agent_id: listed.id, prompt: secrets.prompt } }),
      await gateway.call("GET", "/v1/credits/balance", { token: `${key}x` }),
      await gateway.call("POST", "/v1/agents/", { token: person.token, body: "{ not json" })
    ]
    await gateway.stop()
    const log = gateway.stderr()
    const lines = log.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Record<string, unknown>)
    for (const { headers } of replies) expect(lines.some((line) => Object.values(line).includes(headers["x-request-id"]!))).toBe(true)
    for (const secret of [key, person.token, secrets.password, secrets.prompt, "the agent's secret answer"]) expect(log).not.toContain(secret)
  })
})
