/** What the dashboard makes of figures at their edges: none, many, large, small, old, and texts that are strangers'. */
import { describe, expect, it } from "vitest"
import type { AgentId } from "../../../src/domain/ids.ts"
import { type DashboardFigures, servicesShown } from "../../../src/kernel/market/Dashboard.ts"
import { dashboardPage } from "../../../src/web/dashboardPage.ts"

const at = new Date("2026-03-01T10:00:00Z")
const nothing: DashboardFigures = {
  at,
  stats: { services: 0, agents: 0, teams: 0, calls: 0, cost: 0n, settlements: 0, webhooks: 0 },
  days: ["2026-02-23", "2026-02-24", "2026-02-25", "2026-02-26", "2026-02-27", "2026-02-28", "2026-03-01"].map((date) => ({ date, calls: 0, cost: 0n, buyers: 0, services: 0 })),
  methods: [], providers: [], services: []
}
const service = (more: Partial<DashboardFigures["services"][number]> = {}): DashboardFigures["services"][number] =>
  ({ id: "" as AgentId, name: "A service", provider: "someone", status: "active", averageLatencyMs: 12.5, errorRate: 0, lastAt: at, ...more })
/** The page as a reader sees it, without its head. */
const read = (figures: Partial<DashboardFigures>): string =>
  dashboardPage({ ...nothing, ...figures }).html.replace(/^[^]*<main>/, "").replace(/<[^>]+>/g, " ").replace(/\s+/g, " ")

describe("the dashboard's page", () => {
  it("says of a market where nothing was called that there is nothing to show", () => {
    const text = read({})
    expect(text).toContain("Revenue $0.00")
    expect(text).toContain("No provider had a call yet. Payment methods No calls yet. Service health No service is active.")
    expect(text).toContain("Mon 23 Feb 0 $0.00 0 Tue 24 Feb")
  })

  it("has money to the last micro-dollar, in groups of three digits", () => {
    for (const [cost, said] of [[1n, "$0.000001"], [999_999_990_000n, "$999,999.99"], [1_234_567_000_001n, "$1,234,567.000001"], [123_000_000n, "$123.00"]] as const) {
      expect(read({ stats: { ...nothing.stats, cost } })).toContain(`${said} `)
    }
  })

  it("tells how long ago a service was called, in the largest whole unit", () => {
    const ages: ReadonlyArray<readonly [ms: number, said: string]> = [
      [-5_000, "just now"], [59_999, "just now"], [60_000, "1 min ago"], [3_599_999, "59 min ago"], [3_600_000, "1 h ago"], [86_399_999, "23 h ago"], [86_400_000, "1 d ago"], [1e11, "1,157 d ago"]
    ]
    for (const [ms, said] of ages) expect(read({ services: [service({ lastAt: new Date(at.getTime() - ms) })] })).toContain(`called ${said} `)
    expect(read({ services: [service({ lastAt: null })] })).toContain("someone · never called – –")
  })

  it("says that there are more services than it shows", () => {
    const many = Array.from({ length: servicesShown }, () => service())
    expect(read({ services: many, stats: { ...nothing.stats, services: 1234 } })).toContain("that fail most, of 1,234;")
    expect(read({ services: many.slice(1) })).not.toContain("that fail most")
  })

  it("names a provider by its own name too when it shows another, and lets no text be markup", () => {
    const figures = { calls: 1, cost: 1n, averageLatencyMs: 1, successRate: 100 }
    const { html } = dashboardPage({ ...nothing, providers: [{ ...figures, provider: "eve", displayName: `Bob"'&<b>` }, { ...figures, provider: "ann", displayName: "ann" }] })
    expect(html).toContain("<bdi>Bob&quot;&#39;&amp;&lt;b&gt;</bdi><small><bdi>eve</bdi> · 100.0 % ok")
    expect(html).toContain("<bdi>ann</bdi><small>100.0 % ok")
  })
})
