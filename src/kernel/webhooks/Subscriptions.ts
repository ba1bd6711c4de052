/**
 * Which account is to be told of what, in memory, so that a call can ask in the
 * middle of its decision. A copy of the database's webhooks: `Webhooks.ts` loads
 * it, and loads an account's part again when that has changed.
 */
import type { AccountId } from "../../domain/ids.ts"
import type { WebhookEvent } from "../../domain/webhook.ts"
import type { SubscribedWebhook } from "../../store/market/WebhookStore.ts"

const none: ReadonlyArray<string> = []

export class Subscriptions {
  #byAccount = new Map<AccountId, Map<WebhookEvent, Array<string>>>()
  #webhooks = new Map<string, SubscribedWebhook>()

  /** Ids of webhooks. */
  of(accountId: AccountId, event: WebhookEvent): ReadonlyArray<string> {
    return this.#byAccount.get(accountId)?.get(event) ?? none
  }

  /** Where a webhook leads; `undefined` when it is not known, or no longer there. */
  urlOf(webhookId: string): string | undefined {
    return this.#webhooks.get(webhookId)?.url
  }

  /** What was known of the account, or of all, is forgotten. */
  replace(accountId: AccountId | undefined, webhooks: ReadonlyArray<SubscribedWebhook>): void {
    if (accountId === undefined) {
      this.#byAccount = new Map()
      this.#webhooks = new Map()
    } else {
      // One that has moved to another account is that one's.
      for (const ids of this.#byAccount.get(accountId)?.values() ?? []) {
        for (const id of ids) if (this.#webhooks.get(id)?.accountId === accountId) this.#webhooks.delete(id)
      }
      this.#byAccount.delete(accountId)
    }
    for (const webhook of webhooks) this.#add(webhook)
  }

  #add(webhook: SubscribedWebhook): void {
    const { accountId, id, events } = webhook
    let ofAccount = this.#byAccount.get(accountId)
    if (ofAccount === undefined) this.#byAccount.set(accountId, ofAccount = new Map())
    for (const event of events) {
      const ids = ofAccount.get(event)
      if (ids === undefined) ofAccount.set(event, [id])
      else ids.push(id)
    }
    this.#webhooks.set(id, webhook)
  }
}
