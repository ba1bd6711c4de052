/**
 * The parameters of a flush: each section's rows as one JSON array, in the
 * columns that `batchSql.ts` names.
 */
import type { CommitRequest, UsageRow } from "./Commit.ts"
import { type Section, sections } from "./batchSql.ts"

const iso = (ms: number): string => new Date(ms).toISOString()
const isoOrNull = (ms: number | undefined): string | null => ms === undefined || !Number.isFinite(ms) ? null : iso(ms)
const hex = (bytes: Uint8Array | undefined): string | null => bytes === undefined ? null : Buffer.from(bytes).toString("hex")

export const usageJson = (row: UsageRow): object => ({
  id: row.id, account_id: row.accountId, subject_id: row.subjectId, agent_id: row.agentId, call: row.call,
  status: row.status, cost: String(row.cost), latency_ms: row.latencyMs, created_at: iso(row.atMs)
})

const encode: { readonly [S in Section]: (request: CommitRequest, ord: number) => ReadonlyArray<object> } = {
  finished: ({ accountId, rows }) => (rows.finished ?? []).map((row) => ({
    id: row.id, account_id: accountId, status: row.status, fee: String(row.fee), output_hash: row.outputHash,
    output_text: row.outputText, error: row.error, completed_at: iso(row.completedAtMs)
  })),
  transactions: ({ accountId, rows }, ord) => (rows.transactions ?? []).map((row, index) => ({
    ord: ord + index, id: row.id, account_id: accountId, type: row.type, available: String(row.available), reserved: String(row.reserved),
    earner_id: row.earnerId, earned: String(row.earned), fee: String(row.fee), buyback: String(row.buyback),
    deposits: String(row.deposits), withdrawals: String(row.withdrawals), agent_id: row.agentId, order_id: row.orderId,
    subject_id: row.subjectId, reference: row.reference, created_at: iso(row.atMs)
  })),
  usage: ({ rows }) => (rows.usage ?? []).map(usageJson),
  orders: ({ accountId, rows }) => (rows.orders ?? []).map((row) => ({
    id: row.id, account_id: accountId, subject_id: row.subjectId, agent_id: row.agentId, prompt: row.prompt,
    payment_method: row.paymentMethod, amount: String(row.amount), fee: String(row.fee), created_at: iso(row.createdAtMs)
  })),
  budgets: ({ accountId, rows }) => (rows.budgets ?? []).map((row) => ({
    account_id: accountId, key_id: row.keyId, budget_window: row.window, period_start: iso(row.periodStartMs), amount: String(row.amount)
  })),
  keys: ({ accountId, rows }) => (rows.keys ?? []).map((row) => ({
    id: row.id, account_id: accountId, dialect: row.dialect, name: row.name, key_hash: hex(row.hash), key_prefix: row.prefix,
    scopes: row.scopes, rate_limit: row.rateLimit, expires_at: isoOrNull(row.expiresAtMs), created_at: iso(row.createdAtMs),
    budgets: row.budgets.map((budget) => ({ budget_window: budget.window, amount: String(budget.amount), period_start: iso(budget.periodStartMs) }))
  })),
  revoked: ({ accountId, rows }) => (rows.revoked ?? []).map((row) => ({ id: row.id, account_id: accountId, revoked_at: iso(row.atMs) })),
  agents: ({ accountId, rows }) => (rows.agents ?? []).map((row) => ({
    id: row.id, account_id: accountId, dialect: row.dialect, ticker: row.ticker, name: row.name, description: row.description,
    category: row.category, endpoint_url: row.endpointUrl, price: String(row.price), free_tier_calls: row.freeTierCalls,
    auth_tier: row.authTier, status: row.status, manifest: row.manifest ?? null, provider: row.provider, provider_key: hex(row.providerKey),
    version: String(row.version), created_at: iso(row.createdAtMs)
  })),
  idempotency: ({ accountId, rows }) => (rows.idempotency ?? []).map((row) => ({
    account_id: accountId, key: row.key, fingerprint: row.fingerprint, result_id: row.resultId, created_at: iso(row.atMs)
  })),
  answers: ({ accountId, rows }) => (rows.idempotency ?? []).flatMap((row) => row.answer === undefined ? [] : [{
    account_id: accountId, key: row.key, status: row.answer.status, headers: row.answer.headers,
    body: Buffer.from(row.answer.body as string).toString("base64"), created_at: iso(row.atMs)
  }]),
  audit: ({ accountId, rows }) => (rows.audit ?? []).map((row) => ({
    id: row.id, account_id: accountId, actor: row.actor, action: row.action, target: row.target, details: row.details, created_at: iso(row.atMs)
  }))
}

/** The sections that the batch fills, and their rows as JSON in statement order. */
export const batchParameters = (batch: ReadonlyArray<CommitRequest>): { readonly present: ReadonlySet<Section>; readonly json: ReadonlyArray<string> } => {
  const present = new Set<Section>()
  const json: Array<string> = []
  for (const section of sections) {
    const rows: Array<object> = []
    for (const request of batch) {
      const encoded = encode[section](request, rows.length)
      for (const row of encoded) rows.push(row)
    }
    if (rows.length === 0) continue
    present.add(section)
    json.push(JSON.stringify(rows))
  }
  return { present, json }
}
