/**
 * The rows of a dialect's table. A row is the only description of a route:
 * routing, authentication, limits, decoding, encoding, OpenAPI, docs and the
 * contract tests are derived from it.
 *
 * Four kinds, no more: `endpoint` (one JSON answer), `stream` (server-sent
 * events), `relay` (the agent's own answer passes through), `socket`
 * (WebSocket). Field names follow effect's HttpApiEndpoint.
 */
import type { Effect, Schema, Stream } from "effect"
import type { GatewayError, GatewayErrorTag } from "../domain/errors.ts"
import type { Caller } from "../kernel/Caller.ts"
import type { IdempotentCall } from "../kernel/Idempotency.ts"
import type { UploadedFiles } from "../kernel/OrderUpload.ts"
import type { RelayDress } from "../kernel/Relay.ts"

/** A codec that needs no services of its own: it is compiled once at boot. */
export type Wire<A = any> = Schema.Codec<A, any>

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE"

/**
 * Who may call: nobody in particular, anybody but with their own view when they
 * prove who they are (`optional`), only logins, only API keys, both, or these and
 * an agent with the token that it was called with in a chat (`caller.session`).
 */
export type Auth = "public" | "optional" | "login" | "key" | "loginOrKey" | "loginOrKeyOrAgent"

/** What a handler gets besides its decoded input. */
export interface Call<C = Caller> {
  readonly caller: C
  readonly requestId: string
  /** As the caller asked for it, with its mount and without the query. */
  readonly path: string
  /** A header of the request, by its name in lower case. */
  readonly header: (name: string) => string | undefined
  /** The peer's address as text (the last untrusted hop when `TRUSTED_PROXIES` names the peer). */
  readonly remoteAddress: string
  /** The caller's trace context, for the agents that this call leads to. */
  readonly trace: ReadonlyArray<readonly [string, string]>
  /** Present on rows with `idempotent: true` when the caller sent the header; the kernel commits it with the command. */
  readonly idempotency?: IdempotentCall | undefined
}

/** A handler's answer when status or headers differ from the row's (a cursor, a 200 instead of a 204). */
export class Answer<A> {
  readonly value: A
  readonly headers: ReadonlyArray<readonly [string, string]>
  readonly status: number | undefined
  constructor(value: A, headers: ReadonlyArray<readonly [string, string]> = [], status?: number) {
    this.value = value
    this.headers = headers
    this.status = status
  }
}

export interface Docs {
  readonly summary: string
  readonly description?: string
  readonly tag: string
}

interface RowBase {
  /** `<dialect>.<resource>.<verb>`: operationId, metric label and test name. */
  readonly id: string
  readonly method: Method
  /** Path below the dialect's mounts, parameters in braces; with and without the trailing slash are the same route. */
  readonly path: `/${string}`
  readonly auth: Auth
  readonly scope?: string
  /** Refuses accounts whose email is not verified. */
  readonly verified?: boolean
  /** Calls are not counted in the caller's rate window. */
  readonly uncounted?: boolean
  /** Every error the row can answer with beyond those its auth, scope and body imply; OpenAPI and the contract tests read it. */
  readonly errors: ReadonlyArray<GatewayErrorTag>
  readonly docs: Docs
}

export interface Endpoint<R = any> extends RowBase {
  readonly kind: "endpoint"
  readonly params: Wire | undefined
  readonly query: Wire | undefined
  readonly payload: Wire | undefined
  /** The body is a form (multipart/form-data), not JSON: `payload` reads its fields, which come first, and its parts of this name are files, handed over as they come. */
  readonly upload: string | undefined
  /** Payload numbers are handed over as decimal text, so that money never meets a float. */
  readonly decimals: boolean
  /** `undefined`: an answer without a body, or one of bytes. */
  readonly success: Wire | undefined
  /** The content type of an answer of bytes: `handle` answers them, and `view` leaves them alone. */
  readonly media: string | undefined
  readonly status: number
  readonly bodyBytesMax: number
  readonly idempotent: boolean
  /** The row's answers carry a secret: they are never stored for replay. */
  readonly secret: boolean
  readonly handle: (input: { params: any; query: any; payload: any; files: any }, call: Call<any>) => Effect.Effect<any, GatewayError, R>
  /** From the kernel's result to the success shape. Pure: also renders the answer stored for replays, before the commit. */
  readonly view: (result: any) => unknown
}

type In<W> = W extends Schema.Codec<infer A, any> ? A : undefined

export const endpoint = <
  R,
  Result,
  P extends Wire | undefined = undefined,
  Q extends Wire | undefined = undefined,
  B extends Wire | undefined = undefined,
  A extends Auth = "loginOrKey",
  U extends string | undefined = undefined
>(row: Omit<RowBase, "auth" | "errors"> & {
  readonly auth?: A
  readonly errors?: ReadonlyArray<GatewayErrorTag>
  readonly params?: P
  readonly query?: Q
  readonly payload?: B
  readonly upload?: U
  readonly decimals?: boolean
  readonly success?: Wire
  readonly media?: string
  readonly status?: number
  readonly bodyBytesMax?: number
  readonly idempotent?: boolean
  readonly secret?: boolean
  readonly handle: (
    input: { readonly params: In<P>; readonly query: In<Q>; readonly payload: In<B>; readonly files: U extends string ? UploadedFiles : undefined },
    call: Call<A extends "public" ? undefined : A extends "optional" ? Caller | undefined : Caller>
  ) => Effect.Effect<Result | Answer<Result>, GatewayError, R>
  readonly view?: (result: Result) => unknown
}): Endpoint<R> => ({
  kind: "endpoint", auth: "loginOrKey", errors: [], params: undefined, query: undefined, payload: undefined, upload: undefined,
  decimals: false, success: undefined, media: undefined, status: row.success === undefined && row.media === undefined ? 204 : 200, bodyBytesMax: 64 * 1024,
  idempotent: false, secret: false, view: (result: any) => result, ...row
} as Endpoint<R>)

/** Passes the call to an agent and the agent's answer back, both as they come. */
export interface RelayRow extends RowBase {
  readonly kind: "relay"
  readonly params: Wire | undefined
  /** The agent's id or ticker. */
  readonly agent: (params: Readonly<Record<string, string>>) => string
  /** What is put behind the path of the agent's endpoint; "": nothing. */
  readonly tail: (params: Readonly<Record<string, string>>) => string
  /** All methods that its path takes. */
  readonly allow: ReadonlyArray<Method>
  /** How this dialect dresses the call and its answer. Its functions run on the hot path. */
  readonly dress: Omit<RelayDress, "answer">
  /** Headers of an agent's answer that don't pass, beside those that never do; lower case, one that ends in `*` is a prefix. */
  readonly drops: ReadonlyArray<string>
}
export const relay = (row: Omit<RelayRow, "kind" | "errors" | "params" | "tail" | "allow"> & Partial<Pick<RelayRow, "errors" | "params" | "tail" | "allow">>): RelayRow =>
  ({ kind: "relay", errors: [], params: undefined, tail: () => "", allow: [row.method], ...row })

/** Server-sent events: the stream's values are encoded by `event` and written as `data:` lines, keep-alive comments between them. */
export interface StreamRow<R = any> extends RowBase {
  readonly kind: "stream"
  readonly params: Wire | undefined
  readonly query: Wire | undefined
  readonly event: Wire
  readonly handle: (input: { params: any; query: any }, call: Call<any>) => Stream.Stream<any, GatewayError, R>
}
export const stream = <R, E, P extends Wire | undefined = undefined, Q extends Wire | undefined = undefined>(
  row: Omit<RowBase, "auth" | "errors"> & {
    readonly auth?: Auth
    readonly errors?: ReadonlyArray<GatewayErrorTag>
    readonly params?: P
    readonly query?: Q
    readonly event: Wire<E>
    readonly handle: (input: { readonly params: In<P>; readonly query: In<Q> }, call: Call) => Stream.Stream<E, GatewayError, R>
  }
): StreamRow<R> => ({ kind: "stream", auth: "loginOrKey", errors: [], params: undefined, query: undefined, ...row } as StreamRow<R>)

/** One live WebSocket as its session sees it. Sends never block: `false` means the bytes wait in the socket's bounded queue. */
export interface Socket {
  readonly requestId: string
  readonly remoteAddress: string
  send(text: string): boolean
  close(code: number, reason: string): void
}
/** What the edge calls for one socket, always on the event loop's own turn. After `closed` nothing is called any more. */
export interface SocketSession {
  /** `bytes`: as they came over the wire. */
  message(text: string, bytes: number): void
  drained(): void
  /** The server stops: the session ends its socket soon, or has it ended at the end of the drain. */
  stopping(): void
  closed(code: number): void
}
/** A WebSocket route. The credential comes in the first frame, so `auth` is public here. An error of `accept` answers the upgrade as plain HTTP. */
export interface SocketRow<R = any> extends RowBase {
  readonly kind: "socket"
  readonly params: Wire | undefined
  readonly accept: (input: { params: any }) => Effect.Effect<(socket: Socket) => SocketSession, GatewayError, R>
}
export const socket = <R>(row: Omit<SocketRow<R>, "kind" | "errors" | "params" | "auth"> & {
  readonly errors?: ReadonlyArray<GatewayErrorTag>
  readonly params?: Wire
}): SocketRow<R> => ({ kind: "socket", auth: "public", errors: [], params: undefined, ...row })

export type Row<R = any> = Endpoint<R> | StreamRow<R> | RelayRow | SocketRow<R>
