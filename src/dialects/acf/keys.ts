/** Keys: making one, and asking whether one is good. Both prove what they are shown themselves. */
import { endpoint } from "../../http/endpoint.ts"
import { Keys } from "../../kernel/market/Keys.ts"
import { commitErrors } from "./errors.ts"
import * as wire from "./wire/keys.ts"

const tag = "Authentication"

export const keys = [
  endpoint({
    id: "acf.keys.create", method: "POST", path: "/api/v1/keys", auth: "public", status: 201, secret: true,
    docs: {
      summary: "Create an API key",
      description: "The first key of an owner: a buyer's by anybody, a provider's with any good key. Further keys of an owner need one of its own, or an admin's. The secret is in this answer and nowhere else.",
      tag
    },
    payload: wire.NewKey, success: wire.CreatedKey,
    errors: ["RuleBroken", "Unauthenticated", "NotOwner", "ScopeMissing", "AccountSuspended", "TooManyAttempts", "StoreUnavailable", ...commitErrors],
    handle: ({ payload }, { header, remoteAddress }) => Keys.use((keys) => keys.create({
      owner: payload.owner_id, role: payload.role, rateLimit: payload.rate_limit, walletAddress: payload.wallet_address ?? undefined
    }, { authorization: header("authorization") ?? "", remoteAddress })),
    view: ({ key, prefix, role, rateLimit }) => ({
      key_id: prefix, secret: key.slice(prefix.length + 1), role, rate_limit: rateLimit, message: "Save the secret — it cannot be retrieved again."
    })
  }),
  endpoint({
    id: "acf.keys.validate", method: "POST", path: "/api/v1/keys/validate", auth: "public",
    docs: { summary: "Validate an API key", description: "After 5 failures from an address in a minute: 429.", tag },
    payload: wire.KeyPair, success: wire.ValidKey,
    errors: ["Unauthenticated", "AccountSuspended", "TooManyAttempts", "MailboxFull", "Overloaded", "StoreUnavailable"],
    handle: ({ payload }, { remoteAddress }) => Keys.use((keys) => keys.validate(`${payload.key_id}:${payload.secret}`, remoteAddress)),
    view: ({ owner, role, rateLimit }) => ({ valid: true, owner_id: owner, role, rate_limit: rateLimit })
  })
]
