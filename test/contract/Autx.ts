/** autx as its contract tests call it. */
import { autx } from "../../src/dialects/autx/index.ts"
import type { Row } from "../../src/http/endpoint.ts"
import type { Person, World } from "../support/World.ts"
import { type Product, makeMasked, makeSend } from "./Product.ts"

export const credentialFor = async (row: Row, caller: Person): Promise<string | undefined> => {
  if (row.auth === "public" || row.auth === "optional") return undefined
  return row.auth === "login" ? caller.accessToken : (await caller.key(row.scope ?? "proxy")).key
}

export const autxProduct: Product<Person> = {
  dialect: autx,
  mount: "/v1",
  // `free`: as the demo. `paid`: proxy calls and listing cost money. `bare`: no test credits, no SECRETS_KEY.
  worlds: { free: {}, paid: { proxyBilling: "paid", launchFee: 1_000_000n }, bare: { enableTestCredits: false, secretsKey: undefined } },
  caller: (world) => world.user(),
  credential: credentialFor,
  masks: [
    [/\b[0-9a-f-]{36}@example\.com\b/g, "<email>"],
    [/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g, "<id>"],
    [/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/g, "<time>"],
    [/\bautx_live_[\w-]{43}(?![\w-])/g, "<key>"],
    [/\bautx_live_[\w-]{6}(?![\w-])/g, "<key prefix>"],
    [/\beyJ[\w-]+\.[\w-]+\.[\w-]+/g, "<jwt>"],
    [/^[\w-]{43}\.[\w-]{43}$/g, "<refresh token>"],
    [/^[\w-]{43}$/g, "<43 characters>"],
    [/\bhttp:\/\/127\.0\.0\.1:\d+\/agent\/\d+\b/g, "<endpoint>"],
    [/\bT\d[0-9A-Z]{3}\b/g, "<ticker>"],
    [/\bses_[0-9a-f]{32}\b/g, "<session>"]
  ]
}

export const send = makeSend(autxProduct)
export const masked = makeMasked(autxProduct)

/** The order once it is no longer pending. Asking again is the only signal that the API has. */
export const settledOrder = async (world: World, token: string, id: string): Promise<any> => {
  for (;;) {
    const { json } = await world.call("GET", `/v1/orders/${id}`, { token })
    if (json.status !== "pending") return json
  }
}
