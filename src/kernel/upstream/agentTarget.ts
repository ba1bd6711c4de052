/** An agent's address, taken apart once for each of its versions. */
import type { Agent } from "../../domain/agent.ts"
import { type UpstreamTarget, parseTarget } from "./Upstream.ts"

const targets = new WeakMap<Agent, UpstreamTarget>()

export const targetOf = (agent: Agent): UpstreamTarget => {
  const known = targets.get(agent)
  if (known !== undefined) return known
  const target = parseTarget(agent.endpointUrl)
  targets.set(agent, target)
  return target
}
