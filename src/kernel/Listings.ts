/**
 * Listing agents and changing them. The owner's account decides: the change,
 * its audit row and a launch fee (autx's agents have one) are one commit, fenced
 * by the owner's token.
 */
import { Context, Effect, Layer } from "effect"
import { Config } from "../config.ts"
import type { Agent } from "../domain/agent.ts"
import { AddressForbidden, AlreadyExists, type InsufficientCredits, type NotConfigured, NotFound, NotOwner, NotCommitted, type StoreUnavailable } from "../domain/errors.ts"
import type { AccountId, AgentId, TransactionId } from "../domain/ids.ts"
import { type Decided, decide, isRefusal } from "../domain/ledger.ts"
import { type AgentQuery, type ListedAgent, findAgent, findProviderSince, listAgents } from "../store/AgentStore.ts"
import type { AuditRow, CommitRows } from "../store/Commit.ts"
import { Postgres } from "../store/Postgres.ts"
import { type AccountError, Accounts, type CommitAborted, type CommitError } from "./AccountActor.ts"
import { Agents } from "./AgentActor.ts"
import { auditRow } from "./AuditTrail.ts"
import type { Caller } from "./Caller.ts"
import { newId } from "./Ids.ts"
import { type IdempotentCall, idempotencyRows } from "./Idempotency.ts"
import { Spending } from "./lease/Spending.ts"
import { Secrets } from "./identity/Secrets.ts"
import { UpstreamGuard } from "./upstream/UpstreamGuard.ts"

export type NewAgent = Pick<Agent,
  "dialect" | "ticker" | "name" | "description" | "category" | "endpointUrl" | "price" | "freeTierCalls" | "authTier" | "manifest" | "tags" | "paymentMethod">

export type AgentPatch = Partial<Pick<Agent,
  "name" | "description" | "category" | "endpointUrl" | "price" | "status" | "authTier" | "manifest" | "freeTierCalls" | "tags">>

export type ListingError = AccountError | CommitError | StoreUnavailable

/** What a sealed provider key is bound to. */
export const providerKeyPurpose = "provider_key"

export class Listings extends Context.Service<Listings, {
  /** Durable when answered, with the launch fee charged in the same commit. */
  readonly create: (caller: Caller, wanted: NewAgent, idempotency: IdempotentCall | undefined) =>
    Effect.Effect<ListedAgent, ListingError | AlreadyExists | AddressForbidden | InsufficientCredits>
  readonly patch: (caller: Caller, name: string, patch: AgentPatch) => Effect.Effect<ListedAgent, ListingError | NotOwner | AddressForbidden>
  readonly setProviderKey: (caller: Caller, name: string, key: string, provider: string | undefined) => Effect.Effect<ListedAgent, ListingError | NotOwner | NotConfigured>
  readonly get: (name: string) => Effect.Effect<ListedAgent, NotFound | StoreUnavailable>
  readonly list: (query: AgentQuery) => Effect.Effect<ReadonlyArray<ListedAgent & { readonly figure: bigint }>, StoreUnavailable>
}>()("tollgate/kernel/Listings") {
  static readonly layer = Layer.effect(Listings, Effect.gen(function*() {
    const accounts = yield* Accounts
    const agents = yield* Agents
    const spending = yield* Spending
    const guard = yield* UpstreamGuard
    const secrets = yield* Secrets
    const postgres = yield* Postgres
    const settings = yield* Config

    const checkAddress = (field: string, url: string, ownerId: AccountId): Effect.Effect<void, AddressForbidden> =>
      URL.canParse(url) && guard.check(new URL(url), ownerId) === "ok" ? Effect.void : Effect.fail(new AddressForbidden({ field, address: url }))

    const get = (name: string): Effect.Effect<ListedAgent, NotFound | StoreUnavailable> =>
      findAgent(name).pipe(
        Effect.provideService(Postgres, postgres),
        Effect.flatMap((found) => found === undefined || found.agent.suspended ? Effect.fail(new NotFound({ what: "agent", id: name })) : Effect.succeed(found))
      )

    const create = Effect.fn("Listings.create")(function*(caller: Caller, wanted: NewAgent, idempotency: IdempotentCall | undefined) {
      yield* checkAddress("endpoint_url", wanted.endpointUrl, caller.accountId)
      const taken = yield* findAgent(wanted.ticker).pipe(Effect.provideService(Postgres, postgres))
      if (taken !== undefined) return yield* new AlreadyExists({ what: "ticker", id: wanted.ticker })
      const sinceMs = wanted.dialect === "acf" ? yield* findProviderSince(caller.accountId).pipe(Effect.provideService(Postgres, postgres)) : undefined
      const listing = accounts.act(caller.accountId, (account, nowMs): Effect.Effect<ListedAgent, CommitError | CommitAborted | InsufficientCredits> => {
        const agent: Agent = {
          ...wanted, id: newId<AgentId>(), ownerId: caller.accountId, status: "active", suspended: false,
          provider: undefined, providerKey: undefined, providerSinceMs: wanted.dialect === "acf" ? sinceMs ?? nowMs : undefined,
          version: 1n, createdAtMs: nowMs, updatedAtMs: nowMs
        }
        const listed: ListedAgent = { agent, calls: 0n, revenue: 0n }
        const fee = settings.launchFee === 0n || agent.dialect !== "autx" ? undefined
          : decide(account, { _tag: "Fee", transactionId: newId<TransactionId>(), amount: settings.launchFee, reference: `launch ${agent.ticker}` }, nowMs)
        if (fee !== undefined && isRefusal(fee)) return Effect.fail(fee as InsufficientCredits)
        return accounts.tryCommit(account, {
          ...(fee?.transaction === undefined ? {} : { transactions: [fee.transaction] }),
          agents: [agent],
          idempotency: idempotencyRows(idempotency, agent.id, listed, nowMs),
          audit: [auditRow(caller, "agent.create", agent.id, nowMs, { ticker: agent.ticker, price: String(agent.price) })]
        }, fee as Decided | undefined).pipe(Effect.map(() => {
          agents.publish(agent)
          return listed
        }))
      })
      return yield* spending.withMoney(caller, settings.launchFee, listing).pipe(Effect.catchTag("CommitAborted", ({ constraint }) => Effect.fail(constraint === "agents_ticker_unique"
        ? new AlreadyExists({ what: "ticker", id: wanted.ticker })
        : new NotCommitted({ retryAfterMs: 1_000 }))))
    })

    /** Decides and writes the next version of an agent that the caller owns. */
    const change = Effect.fn("Listings.change")(function*(caller: Caller, name: string, next: (agent: Agent) => Agent, audit: (agent: Agent, atMs: number) => AuditRow) {
      const found = yield* get(name)
      if (found.agent.ownerId !== caller.accountId) return yield* new NotOwner({ what: "agent", id: name })
      const agent = yield* accounts.act(caller.accountId, (account, nowMs) => {
        const base = agents.newest(found.agent)
        const agent: Agent = { ...next(base), version: base.version + 1n, updatedAtMs: nowMs }
        const change = agents.decided(agent)
        const rows: CommitRows = { agents: [agent], audit: [audit(agent, nowMs)] }
        return accounts.commit(account, rows).pipe(
          Effect.onExit((exit) => Effect.sync(() => change.settled(exit._tag === "Success"))),
          Effect.as(agent)
        )
      })
      return { ...found, agent }
    })

    return Listings.of({
      create,
      get,
      list: (query) => listAgents(query).pipe(Effect.provideService(Postgres, postgres)),
      patch: Effect.fn("Listings.patch")(function*(caller, name, patch) {
        if (patch.endpointUrl !== undefined) yield* checkAddress("endpoint_url", patch.endpointUrl, caller.accountId)
        return yield* change(caller, name, (agent) => ({ ...agent, ...patch }),
          (agent, atMs) => auditRow(caller, "agent.update", agent.id, atMs, { fields: Object.keys(patch), ...(patch.price === undefined ? {} : { price: String(agent.price) }) }))
      }),
      setProviderKey: Effect.fn("Listings.setProviderKey")(function*(caller, name, key, provider) {
        const { agent } = yield* get(name)
        if (agent.ownerId !== caller.accountId) return yield* new NotOwner({ what: "agent", id: name })
        const sealed = yield* secrets.seal(providerKeyPurpose, agent.id, Buffer.from(key))
        return yield* change(caller, name, (agent) => ({ ...agent, provider, providerKey: sealed }),
          (agent, atMs) => auditRow(caller, "agent.provider_key", agent.id, atMs, { provider: provider ?? null }))
      })
    })
  }))
}
