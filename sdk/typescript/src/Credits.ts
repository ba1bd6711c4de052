/**
 * The prepaid balance. Amounts go as decimal text ("10.00") or as numbers; text
 * is exact. What moves money carries an idempotency key of its own, so that it
 * is retried safely and happens once.
 */
import type { Http, Page } from "./Http.ts"
import { newId } from "./newId.ts"
import type { CreditBalance, CreditHold, CreditTransaction, Deposit, Withdrawal } from "./wire.ts"

export interface PageOptions {
  /** Rows at most, up to 100. */
  readonly limit?: number
  /** `nextCursor` of the page before. */
  readonly cursor?: string
}

export class Credits {
  readonly #http: Http

  /** @internal */
  constructor(http: Http) {
    this.#http = http
  }

  balance(): Promise<CreditBalance> {
    return this.#http.ask({ path: "/credits/balance" })
  }

  /** Newest first. */
  transactions(page?: PageOptions): Promise<Page<CreditTransaction>> {
    return this.#http.page("/credits/transactions", page)
  }

  /** What is set aside for calls in flight, open sessions and pending orders. */
  holds(page?: { readonly limit?: number }): Promise<Page<CreditHold>> {
    return this.#http.page("/credits/holds", page)
  }

  /** Credits an on-chain transfer that has been made. */
  deposit(txHash: string): Promise<Deposit> {
    return this.#post("/credits/deposit", { tx_hash: txHash })
  }

  /** For development: 404 where test credits are off. */
  depositTest(amount: string | number): Promise<{ readonly balance_usd: string }> {
    return this.#post("/credits/deposit-test", { amount })
  }

  withdraw(amount: string | number, { toAddress }: { readonly toAddress?: string } = {}): Promise<Withdrawal> {
    return this.#post("/credits/withdraw", { amount, to_address: toAddress })
  }

  #post<Body>(path: string, json: object): Promise<Body> {
    return this.#http.ask({ method: "POST", path, json, idempotencyKey: newId() })
  }
}
