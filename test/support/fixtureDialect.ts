/**
 * A dialect that uses every feature of the edge and nothing of the kernel: rows
 * of all four kinds, with what a test wants to see kept in `Fixture`.
 */
import { Effect, Schema, Stream } from "effect"
import { type GatewayErrorTag, InsufficientCredits, NotFound, NotImplemented } from "../../src/domain/errors.ts"
import type { Dialect, ErrorTable } from "../../src/http/dialect.ts"
import { Answer, endpoint, relay, type Socket, socket, type SocketSession, stream } from "../../src/http/endpoint.ts"

const statuses: Readonly<Record<GatewayErrorTag, number>> = {
  RuleBroken: 400,
  InvalidRequest: 422, BodyTooLarge: 413, BodyTimeout: 408, NotFound: 404, MethodNotAllowed: 405, AlreadyExists: 409,
  IdempotencyKeyReused: 409, IdempotencyInFlight: 409, AnswerNotStored: 409, AddressForbidden: 422, InputNotAccepted: 422,
  Unauthenticated: 401, ScopeMissing: 403, LoginRequired: 403, EmailUnverified: 403, NotOwner: 403, OriginForbidden: 403, AccountSuspended: 403,
  InsufficientCredits: 402, BudgetExceeded: 402, RateLimited: 429, TooManyAttempts: 429, MailboxFull: 503, Overloaded: 503,
  AgentPaused: 503, AgentUnavailable: 503, StoreUnavailable: 503, NotCommitted: 503, OutcomeUnknown: 503, HoldLost: 503, Draining: 503,
  NotImplemented: 501, NotConfigured: 503
}

const errors = ({
  ...Object.fromEntries(Object.entries(statuses).map(([tag, status]) => [tag, () => ({ status, body: { error: tag } })])),
  InvalidRequest: (error) => ({ status: error.malformed ? 400 : 422, body: { error: "InvalidRequest", issues: error.issues } }),
  MethodNotAllowed: (error) => ({ status: 405, headers: [["Allow", error.allow.join(", ")]], body: { error: "MethodNotAllowed" } }),
  RateLimited: (error) => ({ status: 429, headers: [["Retry-After", String(Math.ceil(error.retryAfterMs / 1000))]], body: { error: "RateLimited" } })
} satisfies Partial<ErrorTable>) as unknown as ErrorTable

const Thing = Schema.Struct({ id: Schema.String, name: Schema.String }).annotate({ identifier: "FixtureThing" })
const NewThing = Schema.Struct({
  name: Schema.String.check(Schema.isPattern(/^[a-z]+$/)),
  password: Schema.optionalKey(Schema.String.check(Schema.isMinLength(8)))
}).annotate({ identifier: "FixtureNewThing" })
const Amounts = Schema.Struct({ amount: Schema.String, parts: Schema.Array(Schema.String), __proto__x: Schema.optionalKey(Schema.String) })

/** What the handlers saw, and what they wait for. */
export interface Fixture {
  readonly calls: Array<{ readonly row: string; readonly input: unknown; readonly remoteAddress: string }>
  /** Set by a test: what the `wait` rows run. */
  wait: Effect.Effect<string>
  events: Stream.Stream<{ readonly n: number; readonly text?: string }, NotFound>
  session: (socket: Socket, room: string) => SocketSession
}

export const makeFixture = (): Fixture => ({
  calls: [],
  wait: Effect.succeed("done"),
  events: Stream.fromIterable([{ n: 1 }, { n: 2 }]),
  session: (socket) => ({ message: () => undefined, drained: () => undefined, stopping: () => socket.close(1001, "stopping"), closed: () => undefined })
})

const docs = { summary: "A row of the fixture", tag: "fixture" }
const WithId = Schema.Struct({ id: Schema.String })

const rowsOf = (fixture: Fixture): Dialect<never>["rows"] => {
  const note = (row: string, input: unknown, remoteAddress: string): void => {
    fixture.calls.push({ row, input, remoteAddress })
  }
  return [
    endpoint({
      id: "fixture.things.list", method: "GET", path: "/things/", auth: "public", docs,
      query: Schema.Struct({ limit: Schema.optionalKey(Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 100 }))), q: Schema.optionalKey(Schema.String) }),
      success: Schema.Array(Thing),
      handle: (input, call) => Effect.sync(() => {
        note("list", input, call.remoteAddress)
        return new Answer([{ id: "1", name: "one", extra: true }], [["Link", "</next>; rel=\"next\""], ["X-Bad", "a\r\nevil: 1"]])
      })
    }),
    endpoint({
      id: "fixture.things.get", method: "GET", path: "/things/{id}", docs, params: WithId, success: Thing, errors: ["NotFound"],
      handle: (input, call) => {
        note("get", input, call.remoteAddress)
        return input.params.id === "none" ? Effect.fail(new NotFound({ what: "thing", id: "none" })) : Effect.succeed({ id: input.params.id, name: "it" })
      }
    }),
    endpoint({
      id: "fixture.things.create", method: "POST", path: "/things", docs: { ...docs, description: "Makes a thing." }, scope: "things", verified: true,
      payload: NewThing, success: Thing, status: 201, idempotent: true, bodyBytesMax: 1_000, errors: ["AlreadyExists", "InsufficientCredits"],
      handle: (input, call) => {
        note("create", input, call.remoteAddress)
        return input.payload.name === "poor"
          ? Effect.fail(new InsufficientCredits({ required: 2n, available: 1n, held: 0n }))
          : Effect.succeed({ id: String(fixture.calls.length), name: input.payload.name })
      }
    }),
    endpoint({
      id: "fixture.things.delete", method: "DELETE", path: "/things/{id}", auth: "login", docs, params: WithId,
      handle: (input, call) => Effect.sync(() => note("delete", input, call.remoteAddress))
    }),
    endpoint({
      id: "fixture.amounts", method: "POST", path: "/amounts", auth: "public", docs, decimals: true, payload: Amounts, success: Amounts,
      handle: (input) => Effect.succeed(input.payload)
    }),
    endpoint({ id: "fixture.wait.get", method: "GET", path: "/wait", auth: "optional", docs, success: Schema.String, handle: () => fixture.wait }),
    endpoint({ id: "fixture.wait.post", method: "POST", path: "/wait", auth: "optional", docs, success: Schema.String, handle: () => fixture.wait }),
    endpoint({ id: "fixture.defect", method: "GET", path: "/defect", auth: "public", docs, success: Schema.String, handle: () => Effect.die(new Error("secret internals")) }),
    endpoint({ id: "fixture.broken", method: "GET", path: "/broken", auth: "public", docs, success: Thing, handle: () => Effect.succeed({ wrong: true }) }),
    endpoint({ id: "fixture.files", method: "GET", path: "/files/{path*}", auth: "public", docs, success: Schema.Unknown, params: Schema.Struct({ path: Schema.String }), handle: (input) => Effect.succeed(input.params) }),
    stream({
      id: "fixture.events", method: "GET", path: "/events", auth: "public", docs,
      event: Schema.Struct({ n: Schema.Number, text: Schema.optionalKey(Schema.String) }),
      handle: () => fixture.events
    }),
    stream({
      id: "fixture.events.mine", method: "GET", path: "/events/mine", docs,
      event: Schema.Struct({ n: Schema.Number, text: Schema.optionalKey(Schema.String) }),
      handle: () => fixture.events
    }),
    ...(["POST", "GET"] as const).map((method) => relay({
      id: method === "POST" ? "fixture.relay" : "fixture.relay.get", method, path: "/relay/{agent}", auth: "loginOrKey", docs, errors: ["AgentUnavailable"],
      agent: (params) => params["agent"]!, drops: [], allow: ["GET", "POST"],
      dress: { emptyBody: undefined, requestHeaders: () => [], answerHeaders: () => [], reservedPrefix: "x-fixture-" }
    })),
    socket({
      id: "fixture.socket", method: "GET", path: "/ws/{room}", docs, params: Schema.Struct({ room: Schema.String }), errors: ["NotImplemented"],
      accept: ({ params }) => params.room === "closed"
        ? Effect.fail(new NotImplemented({ feature: "sockets" }))
        : Effect.succeed((live: Socket) => fixture.session(live, params.room))
    })
  ]
}

export const fixtureDialect = (fixture: Fixture): Dialect<never> => ({
  name: "fixture",
  title: "Fixture",
  description: "A dialect for <tests>",
  mounts: ["/v9", "/fixture/v9"],
  hostMounts: ["", "/v9"],
  rows: rowsOf(fixture),
  rootRows: [endpoint({
    id: "fixture.keys", method: "GET", path: "/.well-known/fixture.json", auth: "public", docs, success: Schema.Unknown,
    handle: () => Effect.succeed(new Answer({ keys: [] }, [["cache-control", "max-age=60"]]))
  })],
  errors,
  internalError: (requestId) => ({ status: 500, body: { error: "Internal", request_id: requestId } }),
  rateHeaders: (rate) => [["X-RateLimit-Limit", String(rate.limit)], ["X-RateLimit-Remaining", String(rate.remaining)]],
  errorSchema: { type: "object", properties: { error: { type: "string" } }, required: ["error"] }
})
