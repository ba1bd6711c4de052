/**
 * What the callers of one run did, and what they were told: one line for each
 * attempt, with the times between which it must have happened. The checker knows
 * the gateway by this, by what the agents saw, and by the final books.
 *
 * An intent is what a caller wants done once. Its attempts share an idempotency
 * key (a chat turn its message's id, an order its prompt), so that the books can
 * be asked for it by name. A call without a key is one attempt, and the books
 * know it only by its key and its agent.
 */

export type Kind = "call" | "order" | "turn" | "deposit"

export type Outcome =
  /** Acknowledged: it is done, and cost this much. `effectId`: the transaction or order it was told to be; a deposit is told none. */
  | { readonly tag: "ok"; readonly effectId: string | undefined; readonly cost: bigint; readonly text: string; readonly isReplay: boolean }
  /** Told that nothing was done. `status` 0: a socket, which has words instead. */
  | { readonly tag: "refused"; readonly status: number; readonly detail: string; readonly hasRetryAfter: boolean }
  /** Nobody took the connection: it was never sent. */
  | { readonly tag: "unreached" }
  /** Cut off, or told that nobody knows. */
  | { readonly tag: "unknown"; readonly why: string }

export interface Wish {
  readonly kind: Kind
  readonly intent: string
  /** Whether the gateway can be asked for the intent by its name. */
  readonly isNamed: boolean
  readonly accountId: string
  /** The credential: a key's id, or the account's login. */
  readonly subjectId: string
  /** `undefined`: no agent works for it. */
  readonly agentId: string | undefined
  /** What it costs when it is done. */
  readonly price: bigint
}

export interface Attempt extends Wish {
  readonly id: string
  readonly node: number
  readonly beganMs: number
  readonly endedMs: number
  readonly outcome: Outcome
}

/** From when on a key must be refused: the moment at which its DELETE was answered. */
export interface Revocation {
  readonly subjectId: string
  readonly answeredMs: number
}

export class History {
  readonly attempts: Array<Attempt> = []
  readonly revocations: Array<Revocation> = []
  #count = 0

  /** Runs one attempt and writes down what became of it. `act` is told the attempt's id, by which the agent knows it. */
  async attempt(wish: Wish, node: number, act: (id: string) => Promise<Outcome>): Promise<Outcome> {
    const id = `${wish.intent}/${this.#count++}`
    const beganMs = performance.now()
    const outcome = await act(id)
    this.attempts.push({ ...wish, id, node, beganMs, endedMs: performance.now(), outcome })
    return outcome
  }

  tally(): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {}
    for (const { kind, outcome } of this.attempts) {
      const name = `${kind} ${outcome.tag === "refused" ? outcome.status : outcome.tag}`
      counts[name] = (counts[name] ?? 0) + 1
    }
    return counts
  }
}

/** One request that an agent got. */
export interface Served {
  readonly intent: string
  /** `undefined` where the gateway asks in its own name: orders and chat turns. */
  readonly attemptId: string | undefined
  /** The whole answer, and a good one, was given to the connection. */
  isAnswered: boolean
}
