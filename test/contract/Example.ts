/**
 * What the contract tests know of each row: one documented success and one call
 * for each refusal that is the row's own. The tests derive everything else (who
 * may call, bounds, replays, mounts) from the rows themselves.
 */
import type { GatewayErrorTag } from "../../src/domain/errors.ts"
import { autx } from "../../src/dialects/autx/index.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { openApiOf } from "../../src/http/openapi.ts"
import { handshake } from "../support/ChatSocket.ts"
import { type CallOptions, type Person, type Reply, type World, makeWorld } from "../support/World.ts"

/** `free`: as the demo. `paid`: proxy calls and listing cost money. `bare`: no test credits, no SECRETS_KEY. */
export type WorldKind = "free" | "paid" | "bare"

const settings = {
  free: {},
  paid: { proxyBilling: "paid", launchFee: 1_000_000n },
  bare: { enableTestCredits: false, secretsKey: undefined }
} as const

export interface Request extends CallOptions {
  /** Below the mount. Unless given, the row's path, which then has no parameters. */
  readonly path?: string
}

export interface Success {
  readonly request: (world: World, caller: Person) => Request | Promise<Request>
  /** The answer's JSON with what differs from run to run masked; `undefined`: no body, or one of the row's own media type. */
  readonly answer: unknown
  readonly headers?: Readonly<Record<string, RegExp>>
}
export interface Refusal {
  readonly world?: WorldKind
  readonly request: (world: World, caller: Person) => Request | Promise<Request>
  readonly status: number
  readonly answer: unknown
}
export interface RowExamples {
  readonly success: Success
  readonly refusals: { readonly [T in GatewayErrorTag]?: Refusal }
}
export type Examples = Readonly<Record<string, RowExamples>>

/** Worlds made when a test first needs one. */
export const makeWorlds = () => {
  const made = new Map<WorldKind, Promise<World>>()
  return {
    get: (kind: WorldKind): Promise<World> => {
      const known = made.get(kind) ?? makeWorld({ settings: settings[kind] })
      made.set(kind, known)
      return known
    },
    stop: async (): Promise<void> => {
      for (const world of made.values()) await (await world).stop()
    }
  }
}

/** The narrowest credential that the row takes. */
export const credentialFor = async (row: Row, caller: Person): Promise<string | undefined> => {
  if (row.auth === "public" || row.auth === "optional") return undefined
  return row.auth === "login" ? caller.accessToken : (await caller.key(row.scope ?? "proxy")).key
}

export const send = async (world: World, row: Row, caller: Person, { path = row.path, ...options }: Request): Promise<Reply> => {
  const token = options.token ?? await credentialFor(row, caller)
  const reply = row.kind === "socket" ? await shakeHands(world, path, options) : await world.call(row.method, `/v1${path}`, { ...options, token })
  if (!documentedStatuses(row).has(String(reply.status))) throw new Error(`${row.id} answered ${reply.status}, which its OpenAPI description does not name: ${reply.text}`)
  return reply
}

const shakeHands = async (world: World, path: string, { headers = {} }: CallOptions): Promise<Reply> => {
  const { status, headers: answered, body } = await handshake(`${world.url}/v1${path}`, headers)
  return { status, headers: new Headers(answered as Record<string, string>), text: body, json: body === "" ? undefined : JSON.parse(body) }
}

/** Of the row's success. */
export const statusOf = (row: Row): number => row.kind === "endpoint" ? row.status : row.kind === "socket" ? 101 : 200

const document = openApiOf(autx, "0.0.0") as { readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly responses: object }>>>> }
const documentedStatuses = (row: Row): ReadonlySet<string> => new Set(Object.keys(document.paths[row.path]?.[row.method.toLowerCase()]?.responses ?? {}))

const masks: ReadonlyArray<readonly [RegExp, string]> = [
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

/** Replaces what differs from run to run, everywhere in a JSON value. */
export const masked = (value: unknown): unknown => {
  if (typeof value === "string") return masks.reduce((text, [pattern, name]) => text.replace(pattern, name), value)
  if (Array.isArray(value)) return value.map(masked)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, masked(item)]))
}

/** The order once it is no longer pending. Asking again is the only signal that the API has. */
export const settledOrder = async (world: World, token: string, id: string): Promise<any> => {
  for (;;) {
    const { json } = await world.call("GET", `/v1/orders/${id}`, { token })
    if (json.status !== "pending") return json
  }
}

/** A promise and what resolves it. */
export const makeGate = (): { readonly opened: Promise<void>; readonly open: () => void } => {
  let open!: () => void
  return { opened: new Promise<void>((resolve) => { open = resolve }), open }
}
