/**
 * `endpoint` rows: one JSON answer.
 *
 * admission → path and query → body → idempotency → handler → answer.
 *
 * Of a form (`upload`) the handler gets the fields at once and the files as they
 * come, unless the call is idempotent: then the whole form is read first.
 *
 * A caller that leaves interrupts a GET and nothing else: what changes something
 * runs to its end, for money may be moving. With `Idempotency-Key` on a row that
 * honours it the kernel is asked first; a stored answer is repeated with
 * `idempotent-replayed: true` and the handler does not run.
 */
import { Cause, Effect, Exit, Result } from "effect"
import { createHash } from "node:crypto"
import { InvalidRequest, type GatewayError } from "../../domain/errors.ts"
import type { Caller } from "../../kernel/Caller.ts"
import { type IdempotentCall, type StoredAnswer, refuseIdempotencyKey } from "../../kernel/Idempotency.ts"
import type { UploadedFiles } from "../../kernel/OrderUpload.ts"
import type { Header } from "../../kernel/Relay.ts"
import { parseBody } from "../body.ts"
import type { Dialect } from "../dialect.ts"
import { Answer, type Endpoint } from "../endpoint.ts"
import type { Exchange } from "../Exchange.ts"
import { collect } from "../RequestBody.ts"
import { admit, needOf } from "./admit.ts"
import { decoder, encoder, queryOf } from "./codecs.ts"
import { receiveForm } from "./receiveForm.ts"
import { RowMeter } from "./RowMeter.ts"
import type { Target } from "./Target.ts"

interface Written {
  readonly status: number
  readonly headers: ReadonlyArray<Header>
  /** `null`: an answer without a body. */
  readonly body: string | Uint8Array | null
}

const json: ReadonlyArray<Header> = [["content-type", "application/json"]]
const noStore: Header = ["cache-control", "no-store"]

/** From what the handler answered to bytes: `view`, then the success codec. Throws when the handler broke its promise. */
const writer = (row: Endpoint): (result: unknown) => Written => {
  const encode = row.success === undefined ? undefined : encoder(row.success)
  return (result) => {
    const answer = result instanceof Answer ? result : undefined
    const value = answer === undefined ? result : answer.value
    const status = answer?.status ?? row.status
    const headers = answer?.headers ?? []
    if (row.media !== undefined) return { status, headers: [["content-type", row.media], ...headers], body: value as Uint8Array }
    if (encode === undefined || status === 204) return { status, headers, body: null }
    return { status, headers, body: JSON.stringify(encode(row.view(value))) }
  }
}

const send = (exchange: Exchange, written: Written): void => {
  const { headers, body } = written
  const kept = headers.some(([name]) => name.toLowerCase() === "cache-control") ? headers : [noStore, ...headers]
  const isTyped = body === null || headers.some(([name]) => name === "content-type")
  exchange.send(written.status, isTyped ? kept : [...json, ...kept], body)
}

const replay = (exchange: Exchange, stored: StoredAnswer): void =>
  send(exchange, { status: stored.status, headers: [...stored.headers, ["idempotent-replayed", "true"]], body: stored.status === 204 ? null : stored.body })

/** The kernel's half of an idempotent call, or why the key can't be one. */
const idempotentCall = (
  exchange: Exchange,
  row: Endpoint,
  key: string,
  params: Readonly<Record<string, string>>,
  body: Uint8Array,
  write: (result: unknown) => Written
): IdempotentCall | InvalidRequest => {
  const { storedAnswerBytesMax } = exchange.edge.limits
  const refusal = refuseIdempotencyKey(key)
  if (refusal !== undefined) return refusal
  const fingerprint = createHash("sha256")
    .update(`${row.method}\n${row.id}\n${JSON.stringify(params)}\n`).update(body).digest("hex")
  return {
    key,
    fingerprint,
    answer: (result) => {
      if (row.secret) return undefined
      const { status, headers, body } = write(result)
      return body !== null && Buffer.byteLength(body) > storedAnswerBytesMax ? undefined : { status, headers, body: body ?? "" }
    }
  }
}

export const endpointTarget = (dialect: Dialect, row: Endpoint): Target => {
  const need = needOf(dialect, row)
  const decodeParams = decoder(row.params, "path")
  const decodeQuery = decoder(row.query, "query")
  const decodePayload = decoder(row.payload, "body")
  const write = writer(row)

  const finish = (exchange: Exchange, exit: Exit.Exit<StoredAnswer | { readonly result: unknown }, GatewayError>): void => {
    if (Exit.isSuccess(exit)) {
      try {
        if ("result" in exit.value) send(exchange, write(exit.value.result))
        else replay(exchange, exit.value)
      } catch (error) {
        exchange.defect(error)
      }
      return
    }
    const error = Cause.findError(exit.cause)
    if (Result.isSuccess(error)) return exchange.fail(error.success)
    if (!exchange.isDone || !Cause.hasInterruptsOnly(exit.cause)) exchange.defect(Cause.squash(exit.cause))
  }

  const run = (
    exchange: Exchange,
    caller: Caller | undefined,
    input: { readonly params: unknown; readonly query: unknown; readonly payload: unknown; readonly files: UploadedFiles | undefined },
    idempotency: IdempotentCall | undefined
  ): void => {
    const call = { caller, requestId: exchange.requestId, path: exchange.head.path, remoteAddress: exchange.remoteAddress, trace: exchange.head.trace, idempotency, header: (name: string) => exchange.head.header(name) }
    const handled = Effect.suspend(() => row.handle(input, call)).pipe(Effect.map((result) => ({ result })))
    const { idempotency: service } = exchange.edge
    const effect = caller === undefined || idempotency === undefined ? handled : Effect.acquireUseRelease(
      service.begin(caller, idempotency),
      (stored): Effect.Effect<StoredAnswer | { readonly result: unknown }, GatewayError, any> => stored === undefined ? handled : Effect.succeed(stored),
      () => Effect.sync(() => service.end(caller, idempotency))
    )
    const fiber = exchange.edge.run(effect, (exit) => finish(exchange, exit))
    if (row.method === "GET" && !exchange.isDone) exchange.listener = { gone: () => fiber.interruptUnsafe() }
  }

  const receive = (exchange: Exchange, caller: Caller | undefined, params: Readonly<Record<string, string>>): void => {
    const path = decodeParams(params)
    if (path instanceof InvalidRequest) return exchange.fail(path)
    const raw = row.query === undefined ? undefined : queryOf(exchange.head.query)
    const query = raw instanceof InvalidRequest ? raw : decodeQuery(raw)
    if (query instanceof InvalidRequest) return exchange.fail(query)
    if (row.method === "GET") return run(exchange, caller, { params: path.value, query: query.value, payload: undefined, files: undefined }, undefined)

    const key = row.idempotent && caller !== undefined ? exchange.head.idempotencyKey : undefined
    const begin = (payload: unknown, files: UploadedFiles | undefined, body: Uint8Array): void => {
      const idempotency = key === undefined ? undefined : idempotentCall(exchange, row, key, params, body, write)
      if (idempotency instanceof InvalidRequest) return exchange.fail(idempotency)
      run(exchange, caller, { params: path.value, query: query.value, payload, files }, idempotency)
    }
    if (row.upload !== undefined) {
      const form = { filesName: row.upload, bytesMax: row.bodyBytesMax, isWhole: key !== undefined, decode: decodePayload }
      return receiveForm(exchange, form, begin)
    }
    collect(exchange.body, row.bodyBytesMax, (bytes) => {
      const body = row.payload === undefined ? { value: undefined } : parseBody(bytes, row.decimals)
      if (body instanceof InvalidRequest) return exchange.fail(body)
      const payload = decodePayload(body.value)
      if (payload instanceof InvalidRequest) return exchange.fail(payload)
      begin(payload.value, undefined, bytes)
    }, (error) => exchange.fail(error))
  }

  return {
    dialect,
    meter: new RowMeter(row.id),
    serve: (exchange, params) => {
      if (row.auth === "public") return receive(exchange, undefined, params)
      if (row.auth === "optional" && exchange.head.authorization === "") return receive(exchange, undefined, params)
      admit(exchange, need, (caller) => receive(exchange, caller, params))
    }
  }
}
