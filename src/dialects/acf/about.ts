/** What the API says about itself. Touches no store, so it answers when nothing else does. */
import { Clock, Effect, Schema } from "effect"
import { Config } from "../../config.ts"
import { Answer, endpoint } from "../../http/endpoint.ts"
import { Time } from "./wire/fields.ts"

const tag = "About"
const service = "Agent Commerce Framework"
/** Of the API that this is, whatever the gateway's own. */
const version = "0.6.0"

const Health = Schema.Struct({ status: Schema.Literal("ok"), timestamp: Time }).annotate({ identifier: "AcfHealthCheck" })
const About = Schema.Struct({ service: Schema.String, version: Schema.String, docs: Schema.String }).annotate({ identifier: "AcfAbout" })
const Signpost = Schema.Struct({
  name: Schema.String, description: Schema.String, version: Schema.String,
  api: Schema.String, openapi: Schema.String, docs: Schema.String, services: Schema.String, discover: Schema.String,
  authentication: Schema.Struct({ type: Schema.Literal("bearer"), format: Schema.String, keys: Schema.String })
}).annotate({ identifier: "AcfSignpost", description: "For agents that look for an API: absolute URLs" })

const signpost = (publicUrl: string): typeof Signpost.Type => {
  const api = `${publicUrl}/acf`
  return {
    name: service, description: "A market of services: find one, call it through the proxy, and have every call metered.", version,
    api, openapi: `${api}/openapi.json`, docs: `${publicUrl}/docs`, services: `${api}/api/v1/services`, discover: `${api}/api/v1/discover`,
    authentication: { type: "bearer", format: "{key_id}:{secret}", keys: `${api}/api/v1/keys` }
  }
}

export const about = [
  endpoint({
    id: "acf.about.get", method: "GET", path: "/", auth: "public",
    docs: { summary: "Service info", tag },
    success: About,
    handle: () => Effect.succeed({ service, version, docs: "/docs" })
  }),
  endpoint({
    id: "acf.about.health", method: "GET", path: "/health", auth: "public",
    docs: { summary: "Health check", tag },
    success: Health,
    handle: () => Effect.map(Clock.currentTimeMillis, (ms) => ({ status: "ok", timestamp: new Date(ms) }))
  }),
  endpoint({
    id: "acf.about.agents", method: "GET", path: "/.well-known/agents.json", auth: "public",
    docs: { summary: "Where everything is, for agents", tag },
    success: Signpost,
    handle: () => Config.use(({ publicUrl }) => Effect.succeed(new Answer(signpost(publicUrl), [["cache-control", "public, max-age=3600"]])))
  })
]
