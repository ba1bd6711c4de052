/** A dialect as its contract tests call it: where, by whom, with which credential. */
import type { Settings } from "../../src/config.ts"
import type { Dialect } from "../../src/http/dialect.ts"
import type { Row } from "../../src/http/endpoint.ts"
import { openApiOf } from "../../src/http/openapi.ts"
import { handshake } from "../support/ChatSocket.ts"
import { type CallOptions, type Reply, type World, makeWorld } from "../support/World.ts"
import type { Request } from "./Example.ts"

export interface Product<C> {
  readonly dialect: Dialect
  readonly mount: string
  /** The settings of each world that its examples need; the first one is everybody's. */
  readonly worlds: Readonly<Record<string, Partial<Settings>>>
  /** Somebody new who may call the row. */
  readonly caller: (world: World, row: Row) => Promise<C>
  /** The narrowest credential that the row takes; `undefined` where it needs none. */
  readonly credential: (row: Row, caller: C) => Promise<string | undefined>
  /** What differs from run to run, and how it is written down. */
  readonly masks: ReadonlyArray<readonly [RegExp, string]>
}

/** Worlds made when a test first needs one. */
export const makeWorlds = (product: Pick<Product<unknown>, "worlds">) => {
  const made = new Map<string, Promise<World>>()
  return {
    get: (name = Object.keys(product.worlds)[0]!): Promise<World> => {
      const known = made.get(name) ?? makeWorld({ settings: product.worlds[name]! })
      made.set(name, known)
      return known
    },
    stop: async (): Promise<void> => {
      for (const world of made.values()) await (await world).stop()
    }
  }
}

/** Of the row's success. */
export const statusOf = (row: Row): number => row.kind === "endpoint" ? row.status : row.kind === "socket" ? 101 : 200

const shakeHands = async (url: string, { headers = {} }: CallOptions): Promise<Reply> => {
  const { status, headers: answered, body } = await handshake(url, headers)
  return { status, headers: new Headers(answered as Record<string, string>), text: body, json: body === "" ? undefined : JSON.parse(body) }
}

/** The operations of the OpenAPI document, by the ids of their rows. */
export const operationsOf = <O>(dialect: Dialect): ReadonlyMap<string, O> => {
  const { paths } = openApiOf(dialect, "0.0.0") as { readonly paths: Readonly<Record<string, Readonly<Record<string, O & { readonly operationId: string }>>>> }
  return new Map(Object.values(paths).flatMap((operations) => Object.values(operations)).map((operation) => [operation.operationId, operation]))
}

type Send<C> = (world: World, row: Row, caller: C, request: Request) => Promise<Reply>

let addresses = 0
/** Guesses are counted by address: each call comes from one of its own. */
export const anyAddress = (): Readonly<Record<string, string>> => ({ "x-forwarded-for": `198.51.${++addresses >> 8 & 255}.${addresses & 255}` })

/** Calls a row, and refuses an answer whose status its OpenAPI description does not name. */
export const makeSend = <C>({ dialect, mount, credential }: Product<C>): Send<C> => {
  const operations = operationsOf<{ readonly responses: object }>(dialect)
  return async (world, row, caller, { path = row.path, headers, ...rest }) => {
    const options = { ...rest, headers: { ...anyAddress(), ...headers } }
    const token = options.token ?? await credential(row, caller)
    const reply = row.kind === "socket" ? await shakeHands(`${world.url}${mount}${path}`, options) : await world.call(row.method, `${mount}${path}`, { ...options, token })
    if (!Object.hasOwn(operations.get(row.id)!.responses, String(reply.status))) throw new Error(`${row.id} answered ${reply.status}, which its OpenAPI description does not name: ${reply.text}`)
    return reply
  }
}

/** Replaces what differs from run to run, everywhere in a JSON value. */
export const makeMasked = ({ masks }: Pick<Product<unknown>, "masks">): (value: unknown) => unknown => {
  const masked = (value: unknown): unknown => {
    if (typeof value === "string") return masks.reduce((text, [pattern, name]) => text.replace(pattern, name), value)
    if (Array.isArray(value)) return value.map(masked)
    if (typeof value !== "object" || value === null) return value
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, masked(item)]))
  }
  return masked
}
