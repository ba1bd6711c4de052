/**
 * The bench: what the gateway costs, as figures that anyone can take again.
 *
 * Runs the scenarios that are named (all but the soak when none is), one after
 * another, prints a table and appends one JSON line a scenario to
 * bench/results/. A scenario that this machine can't run says why, and the
 * others go on. The exit code is 1 when one failed; a bar that is missed is a
 * figure, not a failure.
 */
import { type Options, readOptions } from "./rig/options.ts"
import { type Report, print, record } from "./rig/Report.ts"
import { Rig } from "./rig/Rig.ts"
import { analytics } from "./scenario/analytics.ts"
import { chat } from "./scenario/chat.ts"
import { cluster } from "./scenario/cluster.ts"
import { latency } from "./scenario/latency.ts"
import { ledger } from "./scenario/ledger.ts"
import { paid } from "./scenario/paid.ts"
import { proxy } from "./scenario/proxy.ts"
import { relay } from "./scenario/relay.ts"
import { simulate } from "./scenario/simulate.ts"
import { soak } from "./scenario/soak.ts"
import { start } from "./scenario/start.ts"

const scenarios: Readonly<Record<string, (rig: Rig, options: Options) => Promise<Report>>> = { relay, proxy, paid, ledger, latency, chat, analytics, start, cluster, simulate, soak }

/** Runs only when it is named. */
const byNameOnly = new Set(["soak"])

const usage = `usage: npm run bench [-- ${Object.keys(scenarios).join("|")} … --rounds=5 --seconds=4 --connections=64 --nodes=3 --no-peers --profile --results=FOLDER]`

const main = async (): Promise<void> => {
  const options = readOptions(process.argv.slice(2))
  const unknown = options?.names.find((name) => !(name in scenarios))
  if (options === undefined || unknown !== undefined) {
    console.error(usage)
    process.exitCode = 2
    return
  }
  const names = options.names.length > 0 ? options.names : Object.keys(scenarios).filter((name) => !byNameOnly.has(name))
  let running: Rig | undefined
  let isStopped = false
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => {
      isStopped = true
      void (running?.end() ?? Promise.resolve()).finally(() => process.exit(1))
    })
  }
  for (const name of names) {
    if (isStopped) return
    const rig = running = new Rig()
    try {
      const report = await scenarios[name]!(rig, options).finally(() => rig.end())
      print(name, report)
      record(name, report, options.results)
    } catch (cause) {
      console.error(`\n${name}: failed`, cause)
      process.exitCode = 1
    }
  }
}

await main()
