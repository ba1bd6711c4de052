/**
 * Tests run in processes of their own, two at a time: they open sockets, start
 * servers and read their own memory use. One throwaway PostgreSQL serves the
 * whole run (support/globalSetup.ts).
 */
import { defineConfig } from "vitest/config"

// vitest's reporter groups failures with this function of Node 21; without it Node 20 would show none.
Object.assign(Map, {
  groupBy: <K, V>(items: Iterable<V>, keyOf: (item: V, index: number) => K): Map<K, Array<V>> => {
    const groups = new Map<K, Array<V>>()
    let index = 0
    for (const item of items) {
      const key = keyOf(item, index++)
      const group = groups.get(key)
      if (group === undefined) groups.set(key, [item])
      else group.push(item)
    }
    return groups
  }
})

/** Several gateways each, under random faults: they have the machine to themselves, after all others. */
const clusterFaults = ["test/fault/cluster/{outages,schedules}.test.ts"]

export default defineConfig({
  test: {
    globalSetup: ["test/support/globalSetup.ts"],
    pool: "forks",
    testTimeout: 30_000,
    // Real servers are started in hooks; the first time some are unpacked there.
    hookTimeout: 120_000,
    projects: [
      { extends: true, test: { name: "tollgate", include: ["test/**/*.test.ts"], exclude: clusterFaults, maxWorkers: 2, sequence: { groupOrder: 0 } } },
      { extends: true, test: { name: "cluster faults", include: clusterFaults, maxWorkers: 1, sequence: { groupOrder: 1 } } }
    ]
  }
})
