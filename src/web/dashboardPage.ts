/**
 * The market's figures for its admin, as one page that needs no script: its
 * charts are drawn from its tables. Names are strangers' texts: each is escaped,
 * kept to two lines, and can't turn the direction of what stands beside it.
 */
import { type Credits, formatUsd } from "../domain/credits.ts"
import type { DashboardFigures } from "../kernel/market/Dashboard.ts"
import { servicesShown } from "../kernel/market/Dashboard.ts"
import { dashboardStyle } from "./dashboardStyle.ts"
import { escapeHtml, type Page, pageOf } from "./page.ts"

const numbers = new Intl.NumberFormat("en-US")
const count = (value: number): string => numbers.format(value)
const usd = (amount: Credits): string => `$${formatUsd(amount).replace(/\B(?=(\d{3})+\.)/g, ",")}`
const percent = (value: number): string => `${value.toFixed(1)} %`
const ms = (value: number): string => `${count(Math.round(value))} ms`
const name = (text: string): string => `<bdi>${escapeHtml(text)}</bdi>`

const utc = (options: Intl.DateTimeFormatOptions) => {
  const format = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" })
  return (date: Date): string => format.format(date)
}
const minute = utc({ day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" })
const day = utc({ weekday: "short", day: "numeric", month: "short" })
const weekday = utc({ weekday: "short" })
const date = utc({ day: "numeric" })
const time = (at: Date, said = `${minute(at)} UTC`): string => `<time datetime="${at.toISOString()}" title="${minute(at)} UTC">${said}</time>`

const minuteMs = 60_000
const units: ReadonlyArray<readonly [ms: number, unit: string]> = [[24 * 60 * minuteMs, "d"], [60 * minuteMs, "h"], [minuteMs, "min"]]
const ago = (at: Date, now: Date): string => {
  const passedMs = now.getTime() - at.getTime()
  const [unitMs, unit] = units.find(([unitMs]) => passedMs >= unitMs) ?? [0, ""]
  return time(at, unitMs === 0 ? "just now" : `${count(Math.floor(passedMs / unitMs))} ${unit} ago`)
}

const tiles = ({ stats }: DashboardFigures): string => {
  const shown: ReadonlyArray<readonly [label: string, value: string]> = [
    ["Revenue", usd(stats.cost)], ["Calls", count(stats.calls)], ["Services", count(stats.services)], ["Agents", count(stats.agents)],
    ["Teams", count(stats.teams)], ["Settlements", count(stats.settlements)], ["Webhooks", count(stats.webhooks)]
  ]
  return `<dl class="tiles">${shown.map(([label, value]) => `<div class="card"><dt>${label}</dt><dd>${value}</dd></div>`).join("")}</dl>`
}

const chart = (id: string, title: string, total: string): string => `
<figure class="card" id="${id}">
<figcaption><h3>${title}</h3><output>${total}</output></figcaption>
<div class="plot" role="img" aria-label="${title} of each day, as bars: the table has the figures"></div>
</figure>`

const week = ({ days }: DashboardFigures): string => {
  const rows = days.map((figures) => {
    const at = new Date(figures.date)
    const { calls, cost, buyers } = figures
    return `<tr data-weekday="${weekday(at)}" data-date="${date(at)}" data-calls="${calls}" data-revenue="${formatUsd(cost)}"><th scope="row">${day(at)}</th><td>${count(calls)}</td><td>${usd(cost)}</td><td>${count(buyers)}</td></tr>`
  })
  return `<h2>Last ${days.length} days</h2>
<div class="pair">
${chart("calls", "Calls", count(days.reduce((sum, { calls }) => sum + calls, 0)))}
${chart("revenue", "Revenue", usd(days.reduce((sum, { cost }) => sum + cost, 0n)))}
</div>
<details>
<summary>The days as a table</summary>
<table id="days">
<thead><tr><th scope="col">Day (UTC)</th><th scope="col">Calls</th><th scope="col">Revenue</th><th scope="col">Buyers</th></tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>
</details>`
}

/** A part of the whole, as a bar. Drawn by attributes: the page's policy allows no inline style. */
const bar = (part: number, whole: number): string =>
  `<svg class="bar" aria-hidden="true"><rect width="${whole === 0 ? 0 : (100 * part / whole).toFixed(2)}%" height="100%"></rect></svg>`

const methods = ({ methods }: DashboardFigures): string => {
  const all = methods.reduce((sum, { calls }) => sum + calls, 0)
  const rows = methods.map(({ method, calls, cost }) =>
    `<tr><th scope="row">${name(method)}${bar(calls, all)}</th><td>${count(calls)}</td><td>${usd(cost)}</td></tr>`)
  return table("Payment methods", ["Method", "Calls", "Revenue"], rows, "No calls yet.")
}

/** A display name can be anybody's, the provider's own name only one's. */
const providers = ({ providers }: DashboardFigures): string => {
  const rows = providers.map(({ displayName, provider, successRate, averageLatencyMs, calls, cost }) => {
    const who = displayName === provider ? "" : `${name(provider)} · `
    return `<tr><th scope="row">${name(displayName)}<small>${who}${percent(successRate)} ok · ${ms(averageLatencyMs)}</small></th><td>${count(calls)}</td><td>${usd(cost)}</td></tr>`
  })
  return table("Top providers", ["Provider", "Calls", "Revenue"], rows, "No provider had a call yet.")
}

const levelOf = (errorRate: number): string => errorRate >= 5 ? "bad" : errorRate >= 1 ? "warn" : "good"

const services = ({ at, services, stats }: DashboardFigures): string => {
  const rows = services.map(({ name: service, provider, errorRate, averageLatencyMs, lastAt }) => {
    const [called, level, errors, latency] = lastAt === null
      ? ["never called", "soft", "–", "–"] : [`called ${ago(lastAt, at)}`, levelOf(errorRate), percent(errorRate), ms(averageLatencyMs)]
    return `<tr><th scope="row">${name(service)}<small>${name(provider)} · ${called}</small></th><td class="${level}">${errors}</td><td>${latency}</td></tr>`
  })
  const more = services.length < servicesShown ? "" : `<p class="soft">The ${servicesShown} that fail most, of ${count(stats.services)}; <code>GET /api/v1/admin/services/health</code> has all.</p>`
  return table("Service health", ["Service", "Errors", "Latency"], rows, "No service is active.") + more
}

const table = (title: string, columns: ReadonlyArray<string>, rows: ReadonlyArray<string>, none: string): string => `<section>
<h2>${title}</h2>
<div class="card">${rows.length === 0 ? `<p class="soft">${none}</p>` : `<table>
<thead><tr>${columns.map((column) => `<th scope="col">${column}</th>`).join("")}</tr></thead>
<tbody>
${rows.join("\n")}
</tbody>
</table>`}</div>
</section>`

export const dashboardPage = (figures: DashboardFigures): Page => pageOf({
  title: "Dashboard · Tollgate",
  style: dashboardStyle(),
  script: "/dashboard/chart.js",
  body: `<header>
<a href="/"><img src="/icon.svg" alt="" width="26" height="26">Tollgate</a>
<p>Figures of ${time(figures.at)} · <a href="">Refresh</a></p>
</header>
<h1>Dashboard</h1>
${tiles(figures)}
${week(figures)}
<div class="pair">
${providers(figures)}
${methods(figures)}
</div>
${services(figures)}`
})
