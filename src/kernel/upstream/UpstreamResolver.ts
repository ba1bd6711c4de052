/**
 * Names to addresses, for connections to agents.
 *
 * Names of strangers are asked of DNS directly (c-ares), never through the
 * system's resolver: `getaddrinfo` blocks one of the process's four worker
 * threads, so a handful of agents with a slow name server would stall password
 * hashing and file access for everybody, and it reads the hosts file, which is
 * the operator's. Names that the operator allowed go the system's way.
 *
 * Look-ups of one name that are under way at once are one look-up. Nothing is
 * cached: a connection is made to the very addresses that were checked.
 */
import { lookup as systemLookup, Resolver, type LookupAddress } from "node:dns"

export type Resolved = (error: Error | null, addresses: ReadonlyArray<LookupAddress>) => void
/** Answers at least one address or an error, once. `system`: the name is the operator's own. */
export type Resolve = (host: string, system: boolean, done: Resolved) => void

/** Two tries of 2 s stay within the connect timeout. */
const queryMs = 2_000
const queryTries = 2

const resolveBySystem = (host: string, done: Resolved): void => systemLookup(host, { all: true }, (error, addresses) => done(error, addresses ?? []))

const resolveByDns = (dns: Resolver) => (host: string, done: Resolved): void => {
  const found: { 4?: ReadonlyArray<string>; 6?: ReadonlyArray<string> } = {}
  const answered = (family: 4 | 6) => (error: Error | null, addresses: ReadonlyArray<string> | undefined): void => {
    found[family] = addresses ?? []
    if (found[4] === undefined || found[6] === undefined) return
    const all = [...found[4].map((address) => ({ address, family: 4 })), ...found[6].map((address) => ({ address, family: 6 }))]
    done(all.length > 0 ? null : error ?? new Error("the name has no address"), all)
  }
  dns.resolve4(host, answered(4))
  dns.resolve6(host, answered(6))
}

const oneAtATime = (resolve: (host: string, done: Resolved) => void) => {
  const waiting = new Map<string, Array<Resolved>>()
  return (host: string, done: Resolved): void => {
    const others = waiting.get(host)
    if (others !== undefined) return void others.push(done)
    waiting.set(host, [done])
    resolve(host, (error, addresses) => {
      const all = waiting.get(host)!
      waiting.delete(host)
      for (const each of all) each(error, addresses)
    })
  }
}

export const makeResolve = (): Resolve => {
  const bySystem = oneAtATime(resolveBySystem)
  const byDns = oneAtATime(resolveByDns(new Resolver({ timeout: queryMs, tries: queryTries })))
  return (host, system, done) => (system ? bySystem : byDns)(host, done)
}
