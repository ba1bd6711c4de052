/**
 * Random faults over two and three nodes under the load of every kind of caller.
 * `npm run fault -- --schedules N [--seed S]` runs as many as one likes; a seed
 * that fails is printed with the command that runs it again.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { Random } from "../../support/Random.ts"
import { useStage } from "../../support/Stage.ts"
import { openSite, planOf, runSchedule, tell } from "./Schedule.ts"
import type { Site } from "./faults.ts"

const stage = useStage(afterAll)

const schedules = Number(process.env["TOLLGATE_SCHEDULES"] ?? (process.env["TOLLGATE_FULL"] === "1" ? 200 : 10))
const { seed: first } = new Random()

let site: Site
beforeAll(async () => {
  site = await openSite(stage, first)
})

describe(`a cluster under ${schedules} random schedules from seed ${first}`, () => {
  it.each(Array.from({ length: schedules }, (_, nth) => first + nth))("loses and doubles nothing by that of seed %i", { timeout: 120_000 }, async (seed) => {
    const plan = planOf(seed)
    const { findings, tally } = await runSchedule(stage, site, plan)
    const replay = `npm run fault -- --schedules 1 --seed ${seed}`
    console.log(tell(plan), JSON.stringify(tally))
    expect(findings, `${tell(plan)}; run it again: ${replay}`).toEqual([])
  })
})
