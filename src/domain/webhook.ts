/** Webhooks: what may be told of, and when a delivery that failed is tried again. Pure. */

export const webhookEvents = ["service.called", "payment.completed", "reputation.updated", "settlement.completed"] as const
export type WebhookEvent = typeof webhookEvents[number]

/** Accounts by their ids: what they are called is looked up when it is told. Money in micro-dollars, as decimal text. */
interface CallFacts {
  readonly usage_id: string
  readonly service_id: string
  readonly buyer: string
  readonly provider: string
  readonly amount: string
  readonly payment_method: string
  readonly status_code: number
  readonly latency_ms: number
}
/** What is known of an event, written with it. */
export interface WebhookFacts {
  readonly "service.called": CallFacts
  readonly "payment.completed": CallFacts & { readonly transaction_id: string }
  /** Scores from 0 to 10; `previous` is 0 when none was told before. */
  readonly "reputation.updated": { readonly account: string; readonly score: number; readonly previous: number }
  readonly "settlement.completed": {
    readonly settlement_id: string; readonly provider: string; readonly total: string; readonly fee: string; readonly net: string; readonly payment_tx: string
  }
}

const known: ReadonlySet<string> = new Set(webhookEvents)

/** Each once, sorted; or the first one that nobody knows. */
export const eventsOf = (names: ReadonlyArray<string>): ReadonlyArray<WebhookEvent> | { readonly unknown: string } => {
  const unknown = names.find((name) => !known.has(name))
  return unknown === undefined ? Array.from(new Set(names as ReadonlyArray<WebhookEvent>)).sort() : { unknown }
}

/** The waits after the first, second and third attempt (contracts/acf.md, Webhooks). */
const retriesMs = [1_000, 2_000, 4_000] as const

/** How long a delivery waits after its n-th attempt has failed; `undefined`: it is given up. */
export const retryMs = (attempts: number): number | undefined => retriesMs[attempts - 1]

/** A receiver has taken a delivery when it answers below 300: a redirect is not followed. */
export const isTaken = (status: number): boolean => status >= 200 && status < 300
