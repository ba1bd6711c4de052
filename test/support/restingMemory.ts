/** What a gateway's process needs when it has nothing to do, whatever its collector did last. */
import { setTimeout as sleep } from "node:timers/promises"
import type { GatewayProcess } from "./GatewayProcess.ts"

/** The environment of a gateway that is asked for it. */
export const restingEnv = { NODE_OPTIONS: "--import ./test/support/collect.mjs" }

/** The least of some looks, each after a collection. */
export const restingBytes = async (gateway: GatewayProcess): Promise<number> => {
  let least = Infinity
  for (let looks = 0; looks < 5; looks++) {
    gateway.signal("SIGUSR2")
    await sleep(100)
    least = Math.min(least, gateway.memoryBytes())
  }
  return least
}
