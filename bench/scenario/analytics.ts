/**
 * Analytics: how long the market's pages take on a million calls: the
 * operator's, the providers' portal, an owner's own usage, discovery and
 * reputation, each with the parameters that it has by itself and, where it has
 * a range, with the largest.
 *
 * One caller asks one page after another, as people do, in turns: each page
 * once, then all again, so that no page has the caches for itself. Times are
 * the caller's, from the request to the whole answer. The rows are checked by
 * the audit first; the portal is then asked once more by a provider whom all
 * services belong to.
 */
import { auditBooks } from "../rig/books.ts"
import { type BenchGateway, startGateway } from "../rig/gateway.ts"
import type { Options } from "../rig/options.ts"
import { type Figure, type Report, median } from "../rig/Report.ts"
import type { Rig } from "../rig/Rig.ts"
import { type Keys, buyers, calls, days, fillMarket, giveAllTo, providers, services } from "./analytics/market.ts"

const callsARound = 20
const barMs = 50

/** What is asked, and by whom. */
interface Page {
  readonly path: string
  readonly key?: string
  readonly of?: string
}

export const analytics = async (rig: Rig, { rounds }: Options): Promise<Report> => {
  const agent = await rig.program("programs/agent")
  const gateway = await startGateway(rig, { billing: "free", agentPort: agent.port, env: { ACF_IP_RATE: "1000000000", ACF_IP_BURST: "1000000000" } })
  const keys = await fillMarket(gateway.sql)
  await auditBooks(gateway)
  await expectCalls(gateway, keys)

  const portion = await portalOf(gateway, keys, `${services / providers} services`)
  const some = await timesOf(gateway, [...adminPages(keys), ...publicPages(await oneService(gateway, keys)), ...portion], rounds * callsARound)
  await giveAllTo(gateway.sql, "provider-1")
  const all = await timesOf(gateway, await portalOf(gateway, keys, "all services"), rounds * callsARound)
  const figures = [...some, ...all].flatMap(({ name, times }): ReadonlyArray<Figure> => [
    { name: `${name}, p50`, unit: "ms", value: median(times) },
    { name: `${name}, p99`, unit: "ms", value: percentile(times, 0.99), bar: { atMost: barMs } }
  ])
  const slow = figures.filter(({ value, bar }) => bar !== undefined && value > barMs)
  return {
    figures: [...figures, { name: `pages that take more than ${barMs} ms at p99`, unit: "", value: slow.length }],
    parameters: { calls, days, buyers, services, providers, asked: rounds * callsARound }
  }
}

const adminPages = ({ admin, buyer }: Keys): ReadonlyArray<Page> => [
  ...[
    "stats", "usage/daily", "usage/daily?days=90", "providers/ranking", "providers/ranking?period=30", "services/health", "payments/summary",
    "analytics/trends", "analytics/trends?granularity=daily&periods=52", "analytics/trends?granularity=weekly&periods=52", "analytics/trends?granularity=monthly&periods=52",
    "analytics/top-services", "analytics/top-services?limit=50&days=365", "analytics/top-services?sort_by=latency",
    "analytics/buyers", "analytics/buyers?days=365", "providers/provider-1/commission"
  ].map((path) => ({ path: `admin/${path}`, key: admin })),
  { path: "settlements", key: admin }, { path: "usage/me", key: buyer }
]

const publicPages = (serviceId: string): ReadonlyArray<Page> => [
  "services", "discover", "discover?q=question+77", "discover?category=ai&sort_by=price&limit=100", "discover/categories", "discover/trending", "discover/trending?limit=100",
  "discover/recommendations/buyer-2", "reputation/leaderboard", "reputation/leaderboard?limit=100", `services/${serviceId}/reputation`,
  "agents/provider-1/reputation", "agents/search?q=provider"
].map((path) => ({ path }))

const portalOf = async (gateway: BenchGateway, keys: Keys, of: string): Promise<ReadonlyArray<Page>> =>
  ["dashboard", "services", `services/${await oneService(gateway, keys)}/analytics`, "earnings", "keys", "onboarding", "milestones"]
    .map((path) => ({ path: `provider/${path}`, key: keys.provider, of }))

const oneService = async (gateway: BenchGateway, { provider }: Keys): Promise<string> =>
  (await ask(gateway, { path: "provider/services", key: provider })).services[0].id

const ask = (gateway: BenchGateway, { path, key }: Page): Promise<any> =>
  gateway.process.ask(200, "GET", `/acf/api/v1/${path}`, key === undefined ? {} : { token: key })

/** Times of nothing are no times. */
const expectCalls = async (gateway: BenchGateway, { admin }: Keys): Promise<void> => {
  const { total_usage_records: found } = await ask(gateway, { path: "admin/stats", key: admin })
  if (found !== calls) throw new Error(`${calls} calls were written, ${found} are told of`)
}

const named = ({ path, of }: Page): string =>
  `${path.replace(/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/, "{id}")}${of === undefined ? "" : ` of ${of}`}`

/** The first two turns warm up and don't count. */
const timesOf = async (gateway: BenchGateway, pages: ReadonlyArray<Page>, turns: number) => {
  const measured = pages.map((page) => ({ page, name: named(page), times: new Array<number>() }))
  for (let turn = -2; turn < turns; turn++) {
    for (const { page, times } of measured) {
      const began = performance.now()
      await ask(gateway, page)
      if (turn >= 0) times.push(performance.now() - began)
    }
  }
  return measured
}

const percentile = (times: ReadonlyArray<number>, part: number): number =>
  [...times].sort((a, b) => a - b)[Math.ceil(times.length * part) - 1]!
