/**
 * A dialect as the edge sees it: where it is mounted, its rows, and how it
 * words a refusal. Everything else about it is in its own folder.
 */
import type { Settings } from "../config.ts"
import type { GatewayError, GatewayErrorTag } from "../domain/errors.ts"
import type { Row } from "./endpoint.ts"

export interface Rendered {
  readonly status: number
  readonly headers?: ReadonlyArray<readonly [string, string]>
  readonly body: unknown
}

/** Total: the compiler refuses a missing tag. */
export type ErrorTable = { readonly [T in GatewayErrorTag]: (error: Extract<GatewayError, { readonly _tag: T }>) => Rendered }

export interface Dialect<R = any> {
  readonly name: string
  readonly title: string
  readonly description: string
  /** Path prefixes, e.g. `/v1`, `/autx/api/v1`. The first is the one that OpenAPI names. */
  readonly mounts: ReadonlyArray<string>
  /** Path prefixes under a host name of its own (`acf.example.org`), `""` for the root. Absent: `mounts`. */
  readonly hostMounts?: ReadonlyArray<string>
  /** Only API keys are good here, also on rows with optional credentials: no logins. */
  readonly keysOnly?: boolean
  /** The token bucket of each address, before anything else is done for it. */
  readonly addressLimit?: (settings: Settings) => { readonly ratePerSecond: number; readonly burst: number }
  /** On every answer, e.g. what browsers may not do with it. */
  readonly answerHeaders?: (settings: Settings) => ReadonlyArray<readonly [string, string]>
  /** Rows that are also served below `/` itself, whatever the host (a key set under `/.well-known`). */
  readonly rootRows?: ReadonlyArray<Row<R>>
  readonly rows: ReadonlyArray<Row<R>>
  readonly errors: ErrorTable
  /** The body of an answer to a defect; names the request id and nothing else. */
  readonly internalError: (requestId: string) => Rendered
  /** The rate headers of an authenticated answer. */
  readonly rateHeaders: (rate: { readonly limit: number; readonly remaining: number; readonly resetMs: number }) => ReadonlyArray<readonly [string, string]>
  /** JSON schema of the error body, for OpenAPI. */
  readonly errorSchema: object
}

/** What a dialect's handlers ask for. */
export type NeedsOf<D> = D extends Dialect<infer R> ? R : never
