/** The public keys of the tokens that agents are called with. Published at the root too: they belong to the issuer. */
import { Effect } from "effect"
import { Answer, endpoint } from "../../http/endpoint.ts"
import { Tokens } from "../../kernel/identity/Tokens.ts"
import * as wire from "./wire.ts"

export const keySet = endpoint({
  id: "autx.jwks", method: "GET", path: "/.well-known/jwks.json", auth: "public",
  docs: { summary: "The keys that sign the tokens forwarded to agents", description: "A key is published a day before it signs.", tag: "Agents" },
  success: wire.KeySet,
  handle: () => Tokens.use((tokens) => Effect.sync(() => new Answer(tokens.jwks(), [["cache-control", "public, max-age=3600"]])))
})
