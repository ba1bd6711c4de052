/**
 * Makes identifiers; `domain/ids.ts` has their types. Nothing here is a secret:
 * ids may be guessed and are never a credential.
 */
import { nanoid } from "nanoid"
import { v7 } from "uuid"
import type { RequestId } from "../domain/ids.ts"

const process72bits = nanoid(12)
let calls = 0

/**
 * Names one call, on every answer and in every log line: this process's random part and a counter, url-safe.
 * A whole nanoid for each call would cost as much as its admission.
 */
export const requestId = (): RequestId => `${process72bits}${(++calls).toString(36)}` as RequestId

/** Names one thing that is stored. Rises with time, so that an index on it stays dense. */
export const newId = <Id extends string>(): Id => v7() as Id
