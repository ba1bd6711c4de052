/**
 * What the contract tests know of each row: one documented success and one call
 * for each refusal that is the row's own. The tests derive everything else (who
 * may call, bounds, replays, mounts) from the rows themselves.
 */
import type { GatewayErrorTag } from "../../src/domain/errors.ts"
import type { CallOptions, Person, World } from "../support/World.ts"

export interface Request extends CallOptions {
  /** Below the mount. Unless given, the row's path, which then has no parameters. */
  readonly path?: string
}

type MakeRequest<C> = (world: World, caller: C) => Request | Promise<Request>

export interface Success<C = Person> {
  readonly request: MakeRequest<C>
  /** The answer's JSON with what differs from run to run masked; `undefined`: no body, or one of the row's own media type. */
  readonly answer: unknown
  readonly headers?: Readonly<Record<string, RegExp>>
}
export interface Refusal<C = Person> {
  /** Of the product's worlds; the first one unless given. */
  readonly world?: string
  readonly request: MakeRequest<C>
  readonly status: number
  readonly answer: unknown
}
export interface RowExamples<C = Person> {
  readonly success: Success<C>
  readonly refusals: { readonly [T in GatewayErrorTag]?: Refusal<C> }
}
export type Examples<C = Person> = Readonly<Record<string, RowExamples<C>>>

/** A promise and what resolves it. */
export const makeGate = (): { readonly opened: Promise<void>; readonly open: () => void } => {
  let open!: () => void
  return { opened: new Promise<void>((resolve) => { open = resolve }), open }
}
