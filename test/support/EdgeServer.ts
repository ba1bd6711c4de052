/** The edge on a real port, with a kernel made of plain objects that a test can read and steer. */
import { Effect, Layer, ManagedRuntime } from "effect"
import { Cluster, type Peer } from "../../src/cluster/Cluster.ts"
import { Config, readSettings, type Settings } from "../../src/config.ts"
import { IdempotencyInFlight, RateLimited, Unauthenticated } from "../../src/domain/errors.ts"
import type { AccountId, KeyId } from "../../src/domain/ids.ts"
import type { EdgeLimits } from "../../src/http/Edge.ts"
import { Server } from "../../src/http/Server.ts"
import { Admission, type Decision } from "../../src/kernel/Admission.ts"
import type { Caller } from "../../src/kernel/Caller.ts"
import { Idempotency, type StoredAnswer } from "../../src/kernel/Idempotency.ts"
import { Readiness } from "../../src/kernel/Readiness.ts"
import { Relay, type RelayCall } from "../../src/kernel/Relay.ts"
import { type Fixture, fixtureDialect, makeFixture } from "./fixtureDialect.ts"

const caller: Caller = { dialect: "fixture", loginId: undefined, accountId: "account" as AccountId, kind: "key", subjectId: "key" as KeyId, expiresAtMs: Number.MAX_SAFE_INTEGER }
const rate = { limit: 60, remaining: 59, resetMs: 1_000 }

const decide = (authorization: string, owner: Peer | undefined): Decision => {
  switch (authorization) {
    case "Bearer placed":
      return owner === undefined ? { caller, rate, error: undefined } : { caller: undefined, rate: undefined, error: undefined, elsewhere: owner }
    case "Bearer resident":
    case "Bearer elsewhere":
      return { caller, rate, error: undefined }
    case "Bearer limited":
      return { caller: undefined, rate: { ...rate, remaining: 0 }, error: new RateLimited({ limit: 60, windowMs: 60_000, retryAfterMs: 1_500 }) }
    default:
      return { caller: undefined, rate: undefined, error: new Unauthenticated({ reason: "missing" }) }
  }
}

export interface EdgeServer {
  readonly port: number
  readonly hopPort: number | undefined
  readonly url: string
  readonly fixture: Fixture
  /** `Bearer elsewhere` is admitted once this has run. */
  admitted: Promise<void>
  /** Who owns the account of `Bearer placed`; `undefined`: this node. */
  owner: Peer | undefined
  relay: RelayCall
  readiness: { readonly ready: boolean; readonly reasons: ReadonlyArray<string> }
  readonly stored: Map<string, StoredAnswer>
  readonly inFlight: Set<string>
  readonly drain: () => Promise<void>
  readonly stop: () => Promise<void>
}

export interface EdgeOptions {
  readonly limits?: Partial<EdgeLimits>
  readonly settings?: Partial<Settings>
  /** Absent: this node is alone. */
  readonly cluster?: Cluster["Service"]
}

export const startEdge = async (options: EdgeOptions = {}): Promise<EdgeServer> => {
  const fixture = makeFixture()
  const settings = { ...readSettings({ PORT: "0", DEMO: "true", ALLOWED_ORIGINS: "https://app.example", DIALECT_HOSTS: "api.example=fixture" }), ...options.settings }
  const stored = new Map<string, StoredAnswer>()
  const inFlight = new Set<string>()
  const steer: Pick<EdgeServer, "admitted" | "owner" | "relay" | "readiness"> = {
    admitted: Promise.resolve(),
    owner: undefined,
    relay: (_caller, _agent, _dress, downstream) => downstream.reply(200, [], "unset"),
    readiness: { ready: true, reasons: [] }
  }
  const kernel = Layer.mergeAll(
    Layer.succeed(Config, settings),
    options.cluster === undefined ? Cluster.layerAlone : Layer.succeed(Cluster, options.cluster),
    Layer.succeed(Readiness, { check: () => steer.readiness }),
    Layer.succeed(Relay, { call: (...parts) => steer.relay(...parts) }),
    Layer.succeed(Admission, {
      admitNow: (authorization) => authorization === "Bearer elsewhere" ? undefined : decide(authorization, steer.owner),
      admit: (authorization) => Effect.map(Effect.promise(() => steer.admitted), () => decide(authorization, steer.owner)),
      again: () => Effect.void
    }),
    Layer.succeed(Idempotency, {
      begin: (_caller, call) => Effect.suspend((): Effect.Effect<StoredAnswer | undefined, IdempotencyInFlight> => {
        if (inFlight.has(call.key)) return Effect.fail(new IdempotencyInFlight({ key: call.key, retryAfterMs: 1_000 }))
        inFlight.add(call.key)
        return Effect.succeed(stored.get(`${call.key} ${call.fingerprint}`))
      }),
      end: (_caller, call) => {
        inFlight.delete(call.key)
      }
    })
  )
  const layer = Server.layer({ dialects: [fixtureDialect(fixture)], version: "0.0.0", ...(options.limits === undefined ? {} : { limits: options.limits }) })
  const runtime = ManagedRuntime.make(Layer.provide(layer, kernel))
  const server = await runtime.runPromise(Server)
  return Object.assign(steer, {
    port: server.port,
    hopPort: server.hopPort,
    url: `http://127.0.0.1:${server.port}`,
    fixture, stored, inFlight,
    drain: () => runtime.runPromise(server.drain),
    stop: () => runtime.dispose()
  })
}
