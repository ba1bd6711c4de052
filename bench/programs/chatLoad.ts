/**
 * The chat's load: its agent, and crowds of clients by name, in one process and
 * one event loop, so that the two never wait for each other's turn on a core.
 * Reads one JSON line a task on standard input, and answers each with one.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { createInterface } from "node:readline"
import type { Place } from "../load/ChatSession.ts"
import { chatAgent } from "../load/chatAgent.ts"
import { Crowd } from "../load/Crowd.ts"
import type { TurnShape } from "../load/Turn.ts"
import { serve } from "../rig/agent.ts"

export type ChatTask = { readonly crowd: string } & (
  /** `keys`: a file with one a line, which sessions take in turn. */
  | { readonly do: "open"; readonly place: Place; readonly keys?: string; readonly total: number; readonly atOnce: number }
  | { readonly do: "talk"; readonly speakers: number; readonly shape: TurnShape }
  | { readonly do: "count" | "rest" | "close" | "dropAndResume" }
  | { readonly do: "oneTurnEach"; readonly shape: TurnShape; readonly atOnce: number }
  | { readonly do: "time"; readonly shape: TurnShape; readonly perSecond: number; readonly seconds: number }
  | { readonly do: "timeDirectly"; readonly agentPort: number; readonly lines: number; readonly shape: TurnShape; readonly perSecond: number; readonly seconds: number }
  /** Every order that was billed, one a line. */
  | { readonly do: "tellOrders"; readonly file: string }
)

const agent = chatAgent()
const crowds = new Map<string, Crowd>()

const crowdOf = (task: ChatTask): Crowd => {
  let crowd = crowds.get(task.crowd)
  if (crowd === undefined) {
    if (task.do !== "open") throw new Error(`${task.crowd} was not opened`)
    crowd = new Crowd(task.place, task.keys === undefined ? [] : readFileSync(task.keys, "utf8").split("\n"))
    crowds.set(task.crowd, crowd)
  }
  return crowd
}

const answer = async (task: ChatTask): Promise<object> => {
  const crowd = crowdOf(task)
  switch (task.do) {
    case "open": return crowd.open(task.total, task.atOnce)
    case "talk": return crowd.talk(task.speakers, task.shape), {}
    case "count": return crowd.counts()
    case "rest": {
      // More than once: a turn may be on its way to the agent.
      const rushing = setInterval(agent.rush, 20)
      await crowd.rest().finally(() => clearInterval(rushing))
      return crowd.counts()
    }
    case "close": return await crowd.close(), crowd.counts()
    case "oneTurnEach": return await crowd.oneTurnEach(task.shape, task.atOnce), crowd.counts()
    case "time": return crowd.time(task.shape, task.perSecond, task.seconds)
    case "timeDirectly": return crowd.timeDirectly(task.agentPort, task.lines, task.shape, task.perSecond, task.seconds)
    case "dropAndResume": return crowd.dropAndResume()
    case "tellOrders": return writeFileSync(task.file, crowd.orders.join("\n")), {}
  }
}

serve(agent.app)
for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(await answer(JSON.parse(line) as ChatTask)))
