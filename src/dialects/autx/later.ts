/**
 * Rows that the contract names and this version does not have: they are routed,
 * authenticated and counted like any other, and then answer 501.
 */
import { Effect } from "effect"
import { NotImplemented } from "../../domain/errors.ts"
import { type Auth, type Endpoint, type Method, endpoint } from "../../http/endpoint.ts"

interface LaterRow {
  readonly id: string
  readonly method: Method
  readonly path: `/${string}`
  readonly auth?: Auth
  readonly scope?: string
  readonly verified?: boolean
  /** What it will answer with. */
  readonly status?: number
  readonly tag: string
  /** The subject of "… is not there yet". */
  readonly feature: string
}

export const later = ({ tag, feature, ...row }: LaterRow): Endpoint<never> => endpoint({
  ...row,
  errors: ["NotImplemented"],
  docs: { summary: feature, description: "Not there yet: answers 501.", tag },
  handle: () => Effect.fail(new NotImplemented({ feature }))
})
