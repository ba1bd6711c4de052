/**
 * The market's figures as their definitions say, from the calls themselves: the
 * naive side that the gateway's roll-ups are compared with. Shares nothing with
 * them.
 */

export interface PlainCall {
  readonly account: string
  readonly agent: string
  readonly atMs: number
  readonly status: number
  readonly cost: bigint
  readonly latencyMs: number
}
export interface PlainAgent {
  readonly id: string
  readonly name: string
  readonly category: string
  readonly owner: string
  readonly method: string
  readonly status: string
  readonly isSuspended: boolean
}
export interface PlainMarket {
  readonly nowMs: number
  readonly calls: ReadonlyArray<PlainCall>
  readonly agents: ReadonlyArray<PlainAgent>
  /** Whom an account counts as. */
  readonly partyOf: (account: string) => string
  readonly nameOf: (party: string) => string
  readonly displayNameOf: (party: string) => string
}

const dayMs = 86_400_000
const dayOf = (ms: number): string => new Date(ms).toISOString().slice(0, 10)

const sum = <A>(items: ReadonlyArray<A>, of: (item: A) => bigint): bigint => items.reduce((total, item) => total + of(item), 0n)
/** One decimal, half up. */
const ratio = (part: bigint, whole: bigint): number => whole === 0n ? 0 : Number((part * 20n + whole) / (whole * 2n)) / 10
const distinct = <A, B>(items: ReadonlyArray<A>, of: (item: A) => B): number => new Set(items.map(of)).size
const grouped = <A>(items: ReadonlyArray<A>, of: (item: A) => string): Array<readonly [string, ReadonlyArray<A>]> => {
  const groups = new Map<string, Array<A>>()
  for (const item of items) groups.set(of(item), [...groups.get(of(item)) ?? [], item])
  return [...groups]
}
const byBig = (a: bigint, b: bigint): number => a < b ? -1 : a > b ? 1 : 0
const byText = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0
const percentOf = (calls: ReadonlyArray<PlainCall>, holds: (call: PlainCall) => boolean): number => ratio(100n * BigInt(calls.filter(holds).length), BigInt(calls.length))
const latencyOf = (calls: ReadonlyArray<PlainCall>): number => ratio(sum(calls, ({ latencyMs }) => BigInt(latencyMs)), BigInt(calls.length))
const costOf = (calls: ReadonlyArray<PlainCall>): bigint => sum(calls, ({ cost }) => cost)
const figuresOf = (calls: ReadonlyArray<PlainCall>) =>
  ({ calls: calls.length, cost: costOf(calls), averageLatencyMs: latencyOf(calls), successRate: percentOf(calls, ({ status }) => status < 400) })

/** The week's year is its Thursday's (ISO 8601). */
const isoWeek = (ms: number): string => {
  const midnight = Math.floor(ms / dayMs) * dayMs
  const weekday = new Date(midnight).getUTCDay() || 7
  const thursday = midnight + (4 - weekday) * dayMs
  const year = new Date(thursday).getUTCFullYear()
  return `${year}-W${String(Math.floor((thursday - Date.UTC(year, 0, 1)) / dayMs / 7) + 1).padStart(2, "0")}`
}
const labels: Readonly<Record<string, (ms: number) => string>> = { daily: dayOf, weekly: isoWeek, monthly: (ms) => dayOf(ms).slice(0, 7) }

/** Those of today and the days before it. */
const within = ({ nowMs, calls }: PlainMarket, days: number): ReadonlyArray<PlainCall> =>
  calls.filter(({ atMs }) => atMs >= (Math.floor(nowMs / dayMs) - days + 1) * dayMs)

const buyersOf = ({ partyOf }: PlainMarket, calls: ReadonlyArray<PlainCall>): number => distinct(calls, ({ account }) => partyOf(account))

export const plainUsage = ({ calls, partyOf, nameOf }: PlainMarket, party: string) => {
  const { calls: count, cost, averageLatencyMs } = figuresOf(calls.filter(({ account }) => partyOf(account) === party))
  return { calls: count, cost, averageLatencyMs, buyer: nameOf(party) }
}

export const plainDaily = (market: PlainMarket, days: number) =>
  grouped(within(market, days), ({ atMs }) => dayOf(atMs)).map(([date, calls]) => ({
    date, calls: calls.length, cost: costOf(calls), buyers: buyersOf(market, calls), services: distinct(calls, ({ agent }) => agent)
  })).sort((a, b) => byText(b.date, a.date))

export const plainTrends = (market: PlainMarket, granularity: string, periods: number) => {
  const label = labels[granularity]!
  const last = new Set<string>()
  for (let atMs = market.nowMs; ; atMs -= dayMs) {
    last.add(label(atMs))
    if (last.size > periods) break
  }
  const wanted = [...last].slice(0, periods)
  return grouped(market.calls.filter(({ atMs }) => wanted.includes(label(atMs))), ({ atMs }) => label(atMs)).map(([period, calls]) => ({
    period, ...figuresOf(calls), buyers: buyersOf(market, calls), services: distinct(calls, ({ agent }) => agent)
  })).sort((a, b) => wanted.indexOf(a.period) - wanted.indexOf(b.period))
}

export const plainRanking = (market: PlainMarket, days: number | undefined, limit: number) => {
  const ownerOf = (id: string): string => market.partyOf(market.agents.find((agent) => agent.id === id)!.owner)
  return grouped(days === undefined ? market.calls : within(market, days), ({ agent }) => ownerOf(agent))
    .sort(([a, hers], [b, his]) => byBig(costOf(his), costOf(hers)) || his.length - hers.length || byText(a, b))
    .slice(0, limit)
    .map(([party, calls]) => ({ provider: market.nameOf(party), displayName: market.displayNameOf(party), ...figuresOf(calls) }))
}

export const plainHealth = ({ agents, calls, partyOf, nameOf }: PlainMarket) =>
  agents.filter(({ status, isSuspended }) => status === "active" && !isSuspended).map(({ id, name, owner, status }) => {
    const own = calls.filter(({ agent }) => agent === id)
    return {
      id, name, provider: nameOf(partyOf(owner)), status, averageLatencyMs: latencyOf(own), errorRate: percentOf(own, (call) => call.status >= 500),
      lastAt: own.length === 0 ? null : new Date(Math.max(...own.map(({ atMs }) => atMs))), calls: own.length
    }
  }).sort((a, b) => b.errorRate - a.errorRate || b.calls - a.calls || byText(a.id, b.id)).map(({ calls: _, ...health }) => health)

export const plainPayments = ({ agents, calls }: PlainMarket) =>
  grouped(calls, ({ agent }) => agents.find(({ id }) => id === agent)!.method).map(([method, paid]) => ({ method, calls: paid.length, cost: costOf(paid) }))
    .sort((a, b) => byBig(b.cost, a.cost) || byText(a.method, b.method))

export const plainTopServices = (market: PlainMarket, sortBy: string, days: number, limit: number) => {
  const latency = (calls: ReadonlyArray<PlainCall>): bigint => sum(calls, ({ latencyMs }) => BigInt(latencyMs))
  const orders: Readonly<Record<string, (a: ReadonlyArray<PlainCall>, b: ReadonlyArray<PlainCall>) => number>> = {
    revenue: (a, b) => byBig(costOf(b), costOf(a)) || b.length - a.length,
    calls: (a, b) => b.length - a.length || byBig(costOf(b), costOf(a)),
    latency: (a, b) => byBig(latency(a) * BigInt(b.length), latency(b) * BigInt(a.length)) || b.length - a.length
  }
  return grouped(within(market, days), ({ agent }) => agent).sort(([a, hers], [b, his]) => orders[sortBy]!(hers, his) || byText(a, b)).slice(0, limit).map(([id, calls]) => {
    const { name, category, owner } = market.agents.find((agent) => agent.id === id)!
    return { id, name, category, provider: market.nameOf(market.partyOf(owner)), ...figuresOf(calls), buyers: buyersOf(market, calls) }
  })
}

export const plainBuyers = (market: PlainMarket, days: number) => {
  const recent = grouped(within(market, days), ({ account }) => market.partyOf(account))
  const repeated = recent.filter(([, calls]) => calls.length > 1).length
  return {
    everyone: buyersOf(market, market.calls), active: recent.length, repeated, repeatRate: ratio(100n * BigInt(repeated), BigInt(recent.length)),
    averageCalls: ratio(sum(recent, ([, calls]) => BigInt(calls.length)), BigInt(recent.length)),
    topSpenders: [...recent].sort(([a, hers], [b, his]) => byBig(costOf(his), costOf(hers)) || his.length - hers.length || byText(a, b)).slice(0, 10)
      .map(([party, calls]) => ({ buyer: market.nameOf(party), calls: calls.length, cost: costOf(calls), services: distinct(calls, ({ agent }) => agent) }))
  }
}
