/**
 * The client ids of a session's finished messages, as far as this node knows
 * them: that spares a look into the database for a message that is surely new.
 */
import { limits } from "../../config.ts"

export class MessageIds {
  #ids: Set<string> | undefined
  #areAll: boolean

  /** `areAll`: the session has no other finished messages. */
  constructor(areAll: boolean) {
    this.#areAll = areAll
  }

  /** No finished message has this id. */
  isNews(id: string): boolean {
    return this.#areAll && this.#ids?.has(id) !== true
  }

  add(id: string): void {
    const ids = this.#ids ??= new Set()
    ids.add(id)
    if (ids.size <= limits.chatMessageIdsKept) return
    ids.delete(ids.values().next().value!)
    this.#areAll = false
  }

  /** There may be others. */
  doubt(): void {
    this.#areAll = false
  }
}
