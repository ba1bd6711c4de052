/**
 * Credentials that nobody was given, against a real gateway. The forger knows
 * all that is public (the key set, how tokens look), has an agent's token and a
 * login of their own, and in the worst case reads the database, whose signing
 * keys are plain here. Each forgery is tried on rows that read, change and pay:
 * 401 in the documented words, and nothing is left behind.
 */
import { type KeyObject, createHash, createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, sign as signBytes } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { GatewayProcess, Person, Reply } from "../support/GatewayProcess.ts"
import type { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { booked, expectCleanBooks, type StageDatabase, useStage } from "../support/Stage.ts"
import { type TablePrints, chargedCalls, tablePrints } from "../support/tablePrints.ts"

const stage = useStage(afterAll)
let database: StageDatabase
let gateway: GatewayProcess
let agent: LoopbackAgent
let ada: Person
let ticker: string
let revokedKey: string
let refreshToken: string
let before: TablePrints
/** The token that the gateway gave the agent with a call. */
let agentToken: string
let publicKey: { readonly kid: string; readonly x: string }
/** What the database has of the key that signs logins. */
let loginKey: { readonly kid: string; readonly x: string; readonly key: KeyObject }

beforeAll(async () => {
  database = await stage.database()
  let seen = ""
  agent = await stage.agent((response, request) => {
    seen = String(request.headers.authorization)
    response.end("done")
  })
  gateway = await stage.gateway(database.env)
  const owner = await gateway.person()
  ticker = (await gateway.list(owner, agent.url, "0.50")).ticker
  ada = await gateway.person("10.00")
  const registered = await gateway.ask(201, "POST", "/v1/auth/register", { body: { email: "eve@example.com", password: "correct horse" } })
  refreshToken = registered.refresh_token
  const made = await gateway.ask(201, "POST", "/v1/api-keys", { token: ada.token, body: { name: "lost" } })
  revokedKey = made.key
  await gateway.ask(200, "POST", `/v1/proxy/${ticker}`, { token: owner.token, body: {} })
  agentToken = seen.replace("Bearer ", "")
  await gateway.call("DELETE", `/v1/api-keys/${made.id}`, { token: ada.token })
  publicKey = (await gateway.ask(200, "GET", "/.well-known/jwks.json")).keys[0]
  const [row] = await database.sql<Array<{ kid: string; private_jwk: Buffer }>>`select kid, private_jwk from signing_keys where purpose = 'login'`
  const jwk = JSON.parse(row!.private_jwk.toString())
  loginKey = { kid: row!.kid, x: jwk.x, key: createPrivateKey({ key: jwk, format: "jwk" }) }
  await gateway.ask(200, "GET", "/v1/credits/balance", { token: ada.token })
  before = await tablePrints(database.sql)
})

type Head = Readonly<Record<string, unknown>>
const text = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url")
const claimsOf = (token: string): object => JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString())
/** Ada's claims, with what the forger would rather have. */
const claims = (more: object = {}): object => ({ ...claimsOf(ada.token), ...more })
const head = (more: Head = {}): Head => ({ alg: "EdDSA", typ: "at+jwt", kid: loginKey.kid, ...more })
/** A token whose signature is made by `sign` over its first two parts. */
const forged = (header: Head, payload: object, sign: (signed: string) => Buffer): string => {
  const signed = `${text(header)}.${text(payload)}`
  return `${signed}.${sign(signed).toString("base64url")}`
}
const nothing = (): Buffer => Buffer.alloc(0)
const hmac = (hash: string, secret: string | Buffer) => (signed: string): Buffer => createHmac(hash, secret).update(signed).digest()
const stranger = generateKeyPairSync("ed25519")
const strangerJwk = stranger.publicKey.export({ format: "jwk" })
const byStranger = (signed: string): Buffer => signBytes(null, Buffer.from(signed), stranger.privateKey)
const byStrangersRsa = (signed: string): Buffer => signBytes("sha256", Buffer.from(signed), generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey)
/** By the gateway's own key, as who reads the database can. */
const byGateway = (header: Head, payload: object): string => forged(header, payload, (signed) => signBytes(null, Buffer.from(signed), loginKey.key))
const pem = (x: string): string => createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" }).export({ type: "spki", format: "pem" }).toString()
const parts = (token: string): [string, string, string] => token.split(".") as [string, string, string]
const inThePast = () => ({ iat: Math.floor(Date.now() / 1000) - 1_000, exp: Math.floor(Date.now() / 1000) - 100 })

type Make = () => string
const forgeries: Readonly<Record<string, Readonly<Record<string, Make>>>> = {
  "an unsigned token": {
    "of alg none": () => forged(head({ alg: "none" }), claims(), nothing),
    "of alg none, spelt otherwise": () => forged(head({ alg: "nOnE" }), claims(), nothing),
    "of alg none, with a good signature": () => `${text(head({ alg: "none" }))}.${parts(ada.token)[1]}.${parts(ada.token)[2]}`,
    "without an algorithm": () => forged({ typ: "at+jwt", kid: loginKey.kid }, claims(), nothing),
    "whose signature was cut off": () => ada.token.slice(0, ada.token.lastIndexOf(".") + 1),
    "of two parts": () => ada.token.slice(0, ada.token.lastIndexOf("."))
  },
  "a changed token": {
    "with another account": () => `${parts(ada.token)[0]}.${text(claims({ account: "00000000-0000-4000-8000-000000000000" }))}.${parts(ada.token)[2]}`,
    "that lives longer": () => `${parts(ada.token)[0]}.${text(claims({ exp: 4_000_000_000 }))}.${parts(ada.token)[2]}`,
    "with another signature's half": () => `${ada.token.slice(0, -40)}${"A".repeat(40)}`,
    "with three more parts": () => `${ada.token}.a.b`
  },
  "a token by another key": {
    "under the gateway's kid": () => forged(head(), claims(), byStranger),
    "under a kid of its own": () => forged(head({ kid: "stranger" }), claims(), byStranger),
    "that it brings along": () => forged(head({ jwk: strangerJwk }), claims(), byStranger),
    "that it names by URL": () => forged(head({ jku: `${agent.url}/jwks`, x5u: `${agent.url}/cert` }), claims(), byStranger),
    "of RSA": () => forged(head({ alg: "RS256" }), claims(), byStrangersRsa),
    "of RSA that says EdDSA": () => forged(head(), claims(), byStrangersRsa)
  },
  "a token keyed with what is public": {
    "the published key's bytes": () => forged(head({ alg: "HS256", kid: publicKey.kid }), claims(), hmac("sha256", Buffer.from(publicKey.x, "base64url"))),
    "the published key's text": () => forged(head({ alg: "HS256", kid: publicKey.kid }), claims(), hmac("sha256", publicKey.x)),
    "the published key as PEM": () => forged(head({ alg: "HS256", kid: publicKey.kid }), claims(), hmac("sha256", pem(publicKey.x))),
    "the login key as PEM": () => forged(head({ alg: "HS512" }), claims(), hmac("sha512", pem(loginKey.x))),
    "the login key's bytes": () => forged(head({ alg: "HS256" }), claims(), hmac("sha256", Buffer.from(loginKey.x, "base64url"))),
    "nothing": () => forged(head({ alg: "HS256" }), claims(), hmac("sha256", ""))
  },
  "a token whose kid is": {
    "SQL": () => byGateway(head({ kid: `${loginKey.kid}' or '1'='1` }), claims()),
    "a file": () => forged(head({ alg: "HS256", kid: "../../../../../../dev/null" }), claims(), hmac("sha256", "")),
    "__proto__": () => byGateway(head({ kid: "__proto__" }), claims()),
    "a list": () => byGateway(head({ kid: [loginKey.kid] }), claims()),
    "a number": () => byGateway(head({ kid: 0 }), claims()),
    "null": () => byGateway(head({ kid: null }), claims()),
    "that of the agents' key": () => byGateway(head({ kid: publicKey.kid }), claims())
  },
  "a token of another kind": {
    "the one an agent is shown": () => agentToken,
    "an agent's, signed as a login": () => byGateway(head({ typ: "agent+jwt" }), claimsOf(agentToken)),
    "a refresh token": () => refreshToken,
    "without a type": () => byGateway({ alg: "EdDSA", kid: loginKey.kid }, claims()),
    "for an audience elsewhere": () => byGateway(head(), claims({ aud: "https://agent.example.com" })),
    "by an issuer elsewhere": () => byGateway(head(), claims({ iss: "http://elsewhere.test" })),
    "that must not be used yet": () => byGateway(head(), claims({ nbf: 4_000_000_000 })),
    "that demands what is not known": () => byGateway(head({ crit: ["unknown"], unknown: 1 }), claims()),
    "whose claims are a list": () => byGateway(head(), [claims()]),
    "whose claims are numbers": () => byGateway(head(), claims({ sub: 1, account: 1, login: 1 })),
    "that never ends": () => byGateway(head(), claims({ exp: undefined })),
    "that ends in the text of a number": () => byGateway(head(), claims({ exp: "4000000000" }))
  },
  "an API key": {
    "that was made up": () => `autx_live_${"x".repeat(43)}`,
    "with SQL": () => "autx_live_'or'1'='1'--",
    "told as its own hash": () => `autx_live_${createHash("sha256").update(revokedKey).digest("base64url")}`
  },
  "a credential": {
    "beyond all length": () => `autx_live_${"x".repeat(5_000)}`,
    "of nothing but dots": () => "..",
    "that is JSON": () => text({ alg: "none" })
  }
}

/** Reads, changes, pays. */
const tries: ReadonlyArray<(token: string) => Promise<Reply>> = [
  (token) => gateway.call("GET", "/v1/auth/me", { token }),
  (token) => gateway.call("GET", "/v1/agents?owner=me", { token }),
  (token) => gateway.call("POST", "/v1/credits/deposit-test", { token, body: { amount: "5.00" } }),
  (token) => gateway.call("POST", "/v1/api-keys", { token, body: { name: "forged" } }),
  (token) => gateway.call("POST", "/v1/orders", { token, body: { agent_id: ticker, prompt: "x" } }),
  (token) => gateway.call("POST", `/v1/proxy/${ticker}`, { token, body: {} })
]
const expectRefused = async (token: string, detail: string): Promise<void> => {
  for (const reply of await Promise.all(tries.map((attempt) => attempt(token)))) {
    expect([reply.status, reply.json, reply.headers["www-authenticate"]]).toEqual([401, { detail }, "Bearer"])
  }
}

it("the forger's hand makes good tokens, so that each refusal below is due to its one difference", async () => {
  expect((await gateway.call("GET", "/v1/auth/me", { token: byGateway(head(), claims()) })).status).toBe(200)
})

for (const [group, made] of Object.entries(forgeries)) {
  describe(group, () => {
    it.each(Object.entries(made))("%s is no credential", (_, make) => expectRefused(make(), "The credential is not valid"))
  })
}

it("an expired token is told so when it was good, and only then", async () => {
  await expectRefused(byGateway(head(), claims(inThePast())), "The credential has expired: refresh the login, or create another API key")
  await expectRefused(forged(head(), claims(inThePast()), byStranger), "The credential is not valid")
  await expectRefused(byGateway(head({ typ: "agent+jwt" }), claims(inThePast())), "The credential is not valid")
})

it("a revoked key is told so", async () => {
  await expectRefused(revokedKey, "The credential was revoked")
})

it.each(["Basic YWRhOnB3", "Bearer", "Bearer ", "Token x", "Negotiate x", "Bearer a b", "bearer\tx"])("the header %j proves nobody", async (authorization) => {
  const reply = await gateway.call("GET", "/v1/auth/me", { headers: { authorization } })
  expect([reply.status, reply.json.detail]).toEqual([401, "The credential is not valid"])
})

it("a good token proves nobody by cookie, query or another header", async () => {
  for (const headers of [{ cookie: `access_token=${ada.token}` }, { "x-api-key": ada.token }, { "x-authorization": `Bearer ${ada.token}` }, { "proxy-authorization": `Bearer ${ada.token}` }]) {
    expect((await gateway.call("GET", `/v1/auth/me?access_token=${ada.token}`, { headers })).status).toBe(401)
  }
})

it("an access token and an agent's token refresh nothing", async () => {
  for (const token of [ada.token, agentToken, `${refreshToken.split(".")[0]}.${"x".repeat(43)}x`, "' or true --"]) {
    const reply = await gateway.call("POST", "/v1/auth/refresh", { body: { refresh_token: token } })
    expect([token.length > 512, reply.status]).toEqual(token.length > 512 ? [true, 422] : [false, 401])
  }
})

it("of all of these nothing stays: no row, no charge, no call to an agent; and the gateway serves on", async () => {
  expect(agent.asked).toHaveLength(1)
  expect(await tablePrints(database.sql)).toEqual(before)
  expect(await chargedCalls(database.sql)).toBe(0)
  expect(await booked(database.sql, ada.accountId)).toEqual({ available: 10_000_000n, reserved: 0n })
  await expectCleanBooks(database.sql)
  await gateway.ask(200, "POST", `/v1/proxy/${ticker}`, { token: ada.token, body: {} })
  expect(gateway.stderr()).not.toContain("defect")
})
