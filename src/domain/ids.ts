/**
 * The identifiers of the gateway, branded so that an account's id can't be
 * passed where a key's is meant. Values are opaque strings on every wire;
 * `kernel/Ids.ts` makes them.
 */
import type { Brand } from "effect"

export type AccountId = string & Brand.Brand<"AccountId">
export type UserId = string & Brand.Brand<"UserId">
/** One of a person's logins: a family of refresh tokens. */
export type LoginId = string & Brand.Brand<"LoginId">
export type KeyId = string & Brand.Brand<"KeyId">
export type AgentId = string & Brand.Brand<"AgentId">
export type OrderId = string & Brand.Brand<"OrderId">
/** `ses_` and 32 hexadecimal digits that rise with time. */
export type SessionId = string & Brand.Brand<"SessionId">
export type HoldId = string & Brand.Brand<"HoldId">
/** A slice of an account's money that another node may spend from. */
export type LeaseId = string & Brand.Brand<"LeaseId">
export type TransactionId = string & Brand.Brand<"TransactionId">
export type BatchId = string & Brand.Brand<"BatchId">
export type RequestId = string & Brand.Brand<"RequestId">

/** The fencing token of one activation: higher than that of every earlier activation of the account. */
export type Token = bigint & Brand.Brand<"Token">

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** Whether the text can be an id that is stored as a UUID; PostgreSQL refuses to compare one with anything else. */
export const isUuid = (text: string): boolean => uuid.test(text)
