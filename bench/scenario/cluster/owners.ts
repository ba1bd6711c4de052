/**
 * Which node owns an account, found as a stranger can: the first call of a key
 * is passed on by every node but its account's owner, and counted there.
 */
import type { BenchCluster, BenchNode } from "../../rig/cluster.ts"
import { body } from "../../rig/agent.ts"
import { metricNames } from "./Setup.ts"

/** Of these keys, which nobody else calls meanwhile, the first `count` whose accounts this node owns, or does not own. One free call each. */
export const keysOf = async (cluster: BenchCluster, node: BenchNode, owned: "here" | "elsewhere", keys: ReadonlyArray<string>, count: number): Promise<ReadonlyArray<string>> => {
  const passedOn = async (): Promise<number> => (await node.metrics())(metricNames.passedOn)
  const found = new Array<string>()
  let before = await passedOn()
  for (const token of keys) {
    if (found.length === count) break
    const { status } = await node.process.call("POST", cluster.paths.free, { token, body: JSON.parse(body) as object })
    const after = await passedOn()
    if (status === 200 && (after > before) === (owned === "elsewhere")) found.push(token)
    before = after
  }
  return found
}
