/**
 * What a gateway is told by the process that starts several of them as one
 * (`npm run cluster`): the database and the Redis that it keeps for them, and
 * where the demo's agents are. It comes over Node's channel between parent and
 * child and not as settings: those stay what the operator gave, and mean what
 * they mean to one gateway.
 *
 * A gateway that was started so ends with its parent, also when that is killed.
 */
import { once } from "node:events"
import type { Settings } from "./config.ts"
import type { Connection } from "./store/Postgres.ts"

export interface Assignment {
  readonly settings: Partial<Pick<Settings, "redisUrl" | "clusterPort">>
  /** `null`: the one of DATABASE_URL. */
  readonly connection: Connection | null
  /** `null`: there is no demo. One of the gateways prepares it, once. */
  readonly demo: { readonly upstreamPort: number; readonly prepares: boolean } | null
}

/** Says to the program that there is an assignment to wait for. */
export const memberFlag = "--member"

/** `undefined`: this process was started by itself. */
export const takeAssignment = async (): Promise<Assignment | undefined> => {
  if (!process.argv.includes(memberFlag)) return undefined
  // Not by an exit, which would write the log out first: its reader was the parent, and the writer would wait for it for ever.
  process.once("disconnect", () => process.kill(process.pid, "SIGKILL"))
  const [assignment] = await once(process, "message") as [Assignment]
  return assignment
}

/** What the parent waits for. */
export const tellListening = (): void => void process.send?.("listening")
