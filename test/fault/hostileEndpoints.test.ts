/**
 * Agents that would make the gateway call its own neighbourhood, against a real
 * gateway that allows one address on loopback and no other. Beside it listens
 * what must never be reached. Addresses are refused when an agent is listed or
 * changed, whatever their spelling; names when they are about to be called; and
 * what a redirect names is never called, it is passed on.
 */
import { once } from "node:events"
import { type AddressInfo, createServer } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type GatewayProcess, type Person, type Reply, until } from "../support/GatewayProcess.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { NameServer } from "../support/NameServer.ts"
import { booked, expectCleanBooks, type StageDatabase, useStage } from "../support/Stage.ts"
import { chargedCalls, tablePrints } from "../support/tablePrints.ts"

/** Names and where they lead; all of them look public. */
const names: Readonly<Record<string, ReadonlyArray<string>>> = {
  "loopback.agents.test-names.com": ["127.0.0.1"],
  "other-loopback.agents.test-names.com": ["127.8.8.8"],
  "loopback6.agents.test-names.com": ["0:0:0:0:0:0:0:1"],
  "mapped.agents.test-names.com": ["0:0:0:0:0:ffff:7f00:1"],
  "both.agents.test-names.com": ["127.0.0.1", "0:0:0:0:0:0:0:1"],
  "metadata.agents.test-names.com": ["169.254.169.254"],
  "private.agents.test-names.com": ["10.0.0.1", "192.168.0.1"],
  "unspecified.agents.test-names.com": ["0.0.0.0"],
  "linklocal6.agents.test-names.com": ["fe80:0:0:0:0:0:0:1"]
}

const stage = useStage(afterAll)
let database: StageDatabase
let gateway: GatewayProcess
let agent: LoopbackAgent
let nameServer: NameServer
let owner: Person
let caller: Person
/** Where nobody but the machine itself may come. */
let insidePort: number
let visitors = 0

beforeAll(async () => {
  database = await stage.database()
  nameServer = await new NameServer(names).listen()
  stage.onEnd(() => nameServer.close())
  const inside = createServer((socket) => {
    visitors++
    socket.destroy()
  }).listen(0)
  await once(inside, "listening")
  stage.onEnd(() => inside.close())
  insidePort = (inside.address() as AddressInfo).port
  agent = await stage.agent()
  gateway = await stage.gateway({ ...database.env, ...nameServer.env, UPSTREAM_ALLOW: new URL(agent.url).host })
  owner = await gateway.person()
  caller = await gateway.person("10.00")
})

const forbidden = "The gateway does not call this address: it must be a public http or https address"
const addressForbidden = { detail: `endpoint_url: ${forbidden}`, errors: [{ loc: ["body", "endpoint_url"], msg: forbidden }] }
let tickers = 0
const list = (endpointUrl: string): Promise<Reply> => gateway.call("POST", "/v1/agents", {
  token: owner.token, body: { name: "An agent", ticker: `H${++tickers}`, endpoint_url: endpointUrl, service_price: "0.50" }
})
const change = async (id: string, endpointUrl: string): Promise<{ readonly status: number; readonly json: unknown }> => {
  const reply = await fetch(`${gateway.url}/v1/agents/${id}`, {
    method: "PATCH", headers: { authorization: `Bearer ${owner.token}`, "content-type": "application/json" }, body: JSON.stringify({ endpoint_url: endpointUrl })
  })
  return { status: reply.status, json: await reply.json() }
}
const proxy = (ticker: string): Promise<Reply> => gateway.call("POST", `/v1/proxy/${ticker}`, { token: caller.token, body: {} })
const settledOrder = async (ticker: string): Promise<any> => {
  const { id } = await gateway.ask(201, "POST", "/v1/orders", { token: caller.token, body: { agent_id: ticker, prompt: "x" } })
  await until(async () => (await gateway.ask(200, "GET", `/v1/orders/${id}`, { token: caller.token })).status !== "pending")
  return gateway.ask(200, "GET", `/v1/orders/${id}`, { token: caller.token })
}

/** `:0` stands for the port where the inside listens. */
const urls: Readonly<Record<string, ReadonlyArray<string>>> = {
  "loopback": ["http://127.0.0.1:0/", "http://127.1:0/", "http://127.255.255.254:0/", "http://localhost:0/", "http://LOCALHOST.:0/", "http://a.localhost:0/", "http://0.0.0.0:0/", "http://[::1]:0/", "http://[::]:0/"],
  "link-local and metadata": [
    "http://169.254.169.254/latest/meta-data/", "http://169.254.1.1:8080/", "http://[fe80::1]:8080/", "http://[fd00:ec2::254]/", "http://metadata.google.internal/", "http://100.100.100.200/", "http://168.63.129.16/"
  ],
  "IPv4 inside IPv6": ["http://[::ffff:127.0.0.1]:0/", "http://[::ffff:7f00:1]:0/", "http://[::127.0.0.1]:0/", "http://[64:ff9b::127.0.0.1]:0/", "http://[2002:7f00:1::]:0/", "http://[::ffff:169.254.169.254]/"],
  "decimal, octal and hexadecimal hosts": [
    "http://2130706433:0/", "http://0x7f000001:0/", "http://0177.0.0.1:0/", "http://017700000001:0/", "http://0x7f.1:0/", "http://0:0/", "http://2852039166/", "http://0251.0376.0251.0376/"
  ],
  "other spellings": ["http://１２７.０.０.１:0/", "http://127%2e0%2e0%2e1:0/", "http://①②⑦.0.0.1:0/", "http://127.0.0.1.:0/", "http:\\\\127.0.0.1:0\\", "http:127.0.0.1:0", " http://127.0.0.1:0/", "http://127.0.0\t.1:0/"],
  "private networks": ["http://10.0.0.1:8080/", "http://172.16.0.1:8080/", "http://192.168.1.1:8080/", "http://[fc00::1]:8080/", "http://100.64.0.1:8080/"],
  "credentials and other ports": ["http://example.com@127.0.0.1:0/", "http://user:pw@93.184.216.34/", "http://93.184.216.34:22/", "http://93.184.216.34:25/", "http://smtp.example.com:25/"]
}
const withPort = (url: string): string => url.replace(":0", `:${insidePort}`)

describe.each(Object.entries(urls))("an endpoint at %s", (_, some) => {
  it.each(some)("%j is refused for a new agent and for one that is listed, and nothing is stored", async (written) => {
    const { id } = (await list(agent.url)).json
    const before = await tablePrints(database.sql)
    const refused = await list(withPort(written))
    expect([refused.status, refused.json], refused.text).toEqual([422, addressForbidden])
    expect(await change(id, withPort(written))).toEqual({ status: 422, json: addressForbidden })
    expect(await tablePrints(database.sql)).toEqual(before)
    expect((await gateway.ask(200, "GET", `/v1/agents/${id}`)).endpoint_url).toBe(agent.url)
  })
})

it.each(["ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1:70/", "javascript:alert(1)", "//127.0.0.1/", "127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:99999/"])("an endpoint %j is no http URL", async (written) => {
  const { status, json } = await list(written)
  expect([status, json.errors[0].loc]).toEqual([422, ["body", "endpoint_url"]])
})

describe.each(Object.keys(names))("a name that leads inside: %s", (name) => {
  it("is not called: 503, nothing is charged and nothing held", async () => {
    const before = await booked(database.sql, caller.accountId)
    const listed = await list(`http://${name}:${insidePort}/run`)
    expect(listed.status).toBe(201)
    const { ticker } = listed.json
    const reply = await proxy(ticker)
    expect([reply.status, reply.json.detail]).toEqual([503, `The agent ${ticker} is at an address that the gateway does not call. Nothing was charged; try again in ${reply.json.retry_after === 1 ? "a second" : `${reply.json.retry_after} seconds`}`])
    expect(nameServer.asked).toContain(name)
    expect(await settledOrder(ticker)).toMatchObject({ status: "failed", output_text: null })
    expect(await booked(database.sql, caller.accountId)).toEqual(before)
    expect(await gateway.metric("tollgate_holds_open")).toBe(0)
  })
})

describe.each([301, 302, 303, 307, 308])("a redirect %i to the inside", (status) => {
  it.each(["http://127.0.0.1:0/", "http://169.254.169.254/latest/", "//127.0.0.1:0/"])("%s is passed on as it came by a call, fails an order, and is followed by neither", async (written) => {
    const location = withPort(written)
    agent.behave = (response) => response.writeHead(status, { location, "content-length": 5 }).end("moved")
    const { ticker } = (await list(agent.url)).json
    const asked = agent.asked.length
    const reply = await proxy(ticker)
    expect([reply.status, reply.headers["location"], reply.text]).toEqual([status, location, "moved"])
    const before = await booked(database.sql, caller.accountId)
    expect(await settledOrder(ticker)).toMatchObject({ status: "failed", output_text: null })
    expect(await booked(database.sql, caller.accountId)).toEqual(before)
    expect(agent.asked).toHaveLength(asked + 2)
  })
})

it("of all of these nobody came inside, only redirects that the agent answered are charged, and the gateway serves on", async () => {
  expect(visitors).toBe(0)
  agent.behave = (response) => response.end("done")
  const { ticker } = (await list(agent.url)).json
  expect((await proxy(ticker)).text).toBe("done")
  expect(await chargedCalls(database.sql)).toBe(5 * 3 + 1)
  await expectCleanBooks(database.sql)
  expect(gateway.stderr()).not.toContain("defect")
})
