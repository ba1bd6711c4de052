/**
 * Heads of calls that are passed on between nodes.
 *
 * The owner gets the caller's head as it came, without what belongs to the
 * caller's connection, and hears beside it who calls, under which request id,
 * and which headers the caller's `Connection` named. The secret of the cluster
 * proves that another node says so; whoever can't prove it is no node.
 *
 * The owner's answer goes to the caller as it is: its head is complete, with
 * request id, CORS and rate headers. Only the framing is each connection's own.
 */
import type { IncomingMessage } from "node:http"
import { timingSafeEqual } from "node:crypto"
import type { Header } from "../../kernel/Relay.ts"
import { hopByHop, isToken, wireValue } from "../../kernel/upstream/hopByHop.ts"
import { hopPrefix, type RequestHead } from "../headers.ts"

const secretName = hopPrefix
const addressName = `${hopPrefix}-address`
const requestIdName = `${hopPrefix}-request-id`
const connectionName = `${hopPrefix}-connection`
/** On an answer: nothing was done, because this node does not own the account any more, or stops. */
const notMineName = `${hopPrefix}-not-mine`

export const notMine: Header = [notMineName, "1"]

/** What the first node says of a call that it passes on. */
export interface Told {
  readonly requestId: string
  readonly address: string
}

/** Changes nothing where it is answered by the gateway itself (RFC 9110 §9.2.1). */
export const isSafe = (method: string): boolean => method === "GET" || method === "HEAD"

const notToNode = new Set([...hopByHop, "expect"])

/** The head of a call as the owner gets it: name, value, name, value … `undefined`: a header can't be written. `length`: `undefined` when the body comes in chunks. */
export const toOwner = (head: RequestHead, told: Told, secret: string, length: number | undefined): Array<string> | undefined => {
  const flat: Array<string> = []
  const connection: Array<string> = []
  for (const [name, value] of head.headers) {
    const wire = wireValue(value)
    if (wire === undefined || !isToken(name)) return undefined
    if (name === "connection") connection.push(wire)
    else if (!notToNode.has(name)) flat.push(name, wire)
  }
  flat.push(secretName, secret, addressName, told.address, requestIdName, told.requestId)
  if (connection.length > 0) flat.push(connectionName, connection.join(","))
  if (length === undefined) flat.push("transfer-encoding", "chunked")
  // Without it node:http would send an empty body in chunks.
  else if (length > 0 || !isSafe(head.method)) flat.push("content-length", String(length))
  return flat
}

const isSame = (text: string, secret: string): boolean => {
  const [a, b] = [Buffer.from(text), Buffer.from(secret)]
  return a.byteLength === b.byteLength && timingSafeEqual(a, b)
}

/** What another node tells of the call; `undefined`: no node of this cluster sent it. Gives the head back what the caller's `Connection` said. */
export const toldOf = (head: RequestHead, secret: string): Told | undefined => {
  const { [secretName]: proof, [addressName]: address, [requestIdName]: requestId, [connectionName]: connection } = head.hop ?? {}
  if (proof === undefined || address === undefined || requestId === undefined || !isSame(proof, secret)) return undefined
  if (connection !== undefined) head.headers.push(["connection", connection])
  return { requestId, address }
}

export const isNotMine = (answer: IncomingMessage): boolean => answer.headers[notMineName] !== undefined

/** `date` and `uwebsockets` are written by every node's own server. */
const notFromNode = new Set([...hopByHop, "date", "uwebsockets"])

const beyondAscii = /[^\x00-\x7f]/

/** The head of the owner's answer as the caller gets it. */
export const toCaller = (answer: IncomingMessage): Array<Header> => {
  const { rawHeaders } = answer
  const headers: Array<Header> = []
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    const value = rawHeaders[i + 1]!
    const lower = name.toLowerCase()
    // The edge writes UTF-8; these are the same bytes.
    if (!notFromNode.has(lower) && !lower.startsWith(hopPrefix)) headers.push([name, beyondAscii.test(value) ? Buffer.from(value, "latin1").toString("utf8") : value])
  }
  return headers
}
