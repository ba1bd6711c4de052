/**
 * The upstream guard: which addresses the gateway connects to on behalf of an
 * agent's owner.
 *
 * Guarantee: no connection leaves for an address that is neither public nor
 * allowed by the operator. The URL is judged when it is stored (`check`) and
 * again at each connect (`lookupFor`), where every *resolved* address is judged
 * before the socket gets it. The socket connects to the addresses that were
 * judged, so a name that changes its mind between two look-ups gains nothing.
 *
 * `UPSTREAM_ALLOW` holds `host`, `host:port` and CIDR entries. A name that is
 * listed may lead anywhere; a listed address or network may be reached by
 * whatever name leads there. They count for agents of the accounts in
 * `UPSTREAM_ALLOW_OWNERS` (all, when unset): such an owner is *trusted*, and a
 * connection made for a trusted owner must not be reused for another.
 * `allow` adds an entry for everybody: the demo upstream's own port.
 */
import { Context, Effect, Layer } from "effect"
import type { LookupAddress } from "node:dns"
import type { LookupFunction } from "node:net"
import { BadSetting, Config, type Settings } from "../../config.ts"
import {
  type Address, type Network, contains, hostName, isAllowedPort, isInternalName, isPlainHttp, isPublicAddress,
  isPublicEndpoint, parseAddress, parseNetwork, portOf
} from "../../domain/upstreamAddress.ts"
import { type Resolve, makeResolve } from "./UpstreamResolver.ts"

/** Why a connection was not made. Never reaches the network. */
export class ForbiddenAddress extends Error {
  override readonly name = "ForbiddenAddress"
}

/** One allowed name or network, on one port or on all. */
interface Rule {
  readonly name: string | undefined
  readonly network: Network | undefined
  readonly port: number | undefined
}

const hostAndPort = /^(\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)(?::(\d{1,5}))?$/i

const parseRule = (entry: string): Rule => {
  const bad = (): never => {
    throw new BadSetting(`UPSTREAM_ALLOW=${JSON.stringify(entry)} is not allowed: host, host:port or a network such as 10.0.0.0/8, separated by commas`)
  }
  if (entry.includes("/")) return { name: undefined, network: parseNetwork(entry) ?? bad(), port: undefined }
  const literal = parseAddress(entry)
  if (literal !== undefined) return { name: undefined, network: single(literal), port: undefined }
  const [, host, digits] = hostAndPort.exec(entry) ?? bad()
  const port = digits === undefined ? undefined : Number(digits)
  const text = `http://${host}`
  if (port === 0 || (port ?? 1) > 65_535 || !URL.canParse(text)) bad()
  const name = hostName(new URL(text))
  const address = parseAddress(name)
  return address === undefined ? { name, network: undefined, port } : { name: undefined, network: single(address), port }
}

const single = (address: Address): Network => ({ ...address, prefix: address.bits })

const onPort = (rule: Rule, port: number): boolean => rule.port === undefined || rule.port === port

export class UpstreamGuard extends Context.Service<UpstreamGuard, {
  /** Judges an endpoint that is about to be stored, by its text alone: no look-up. */
  readonly check: (url: URL, ownerId: string) => "ok" | "forbidden"
  /** Allows one more entry, for every owner. */
  readonly allow: (entry: string) => void
  /** Whether the operator's entries count for the owner's agents. */
  readonly trusts: (ownerId: string) => boolean
  /** Judges the URL again and answers the look-up that judges its addresses; `undefined`: forbidden. */
  readonly lookupFor: (url: URL, trusted: boolean) => LookupFunction | undefined
}>()("tollgate/kernel/upstream/UpstreamGuard") {
  static readonly layer: Layer.Layer<UpstreamGuard, BadSetting, Config> = Layer.effect(UpstreamGuard, Effect.gen(function*() {
    const settings = yield* Config
    return yield* Effect.try({
      try: () => makeUpstreamGuard(settings, makeResolve()),
      catch: (cause) => cause as BadSetting
    })
  }))
}

/** Throws `BadSetting` for an entry that can't be read. */
export const makeUpstreamGuard = (
  settings: Pick<Settings, "upstreamAllow" | "upstreamAllowOwners">,
  resolve: Resolve
): UpstreamGuard["Service"] => {
  const everybodys: Array<Rule> = []
  const operators = settings.upstreamAllow.map(parseRule)
  const owners = settings.upstreamAllowOwners === undefined ? undefined : new Set(settings.upstreamAllowOwners)

  const trusts = (ownerId: string) => operators.length > 0 && (owners === undefined || owners.has(ownerId))
  const some = (trusted: boolean, test: (rule: Rule) => boolean) => everybodys.some(test) || trusted && operators.some(test)
  const nameAllowed = (host: string, port: number, trusted: boolean) =>
    some(trusted, (rule) => rule.name === host && onPort(rule, port))
  const addressAllowed = (address: Address, port: number, trusted: boolean) =>
    some(trusted, (rule) => rule.network !== undefined && onPort(rule, port) && contains(rule.network, address))

  /** An inside name may pass on its text when some network is allowed: its addresses decide. */
  const endpointAllowed = (url: URL, trusted: boolean): boolean => {
    if (!isPlainHttp(url)) return false
    const host = hostName(url)
    const port = portOf(url)
    const address = parseAddress(host)
    if (address !== undefined ? addressAllowed(address, port, trusted) : nameAllowed(host, port, trusted)) return true
    if (isPublicEndpoint(url)) return true
    return address === undefined && isInternalName(host) && isAllowedPort(port) &&
      some(trusted, (rule) => rule.network !== undefined && onPort(rule, port))
  }

  const reachable = (text: string, port: number, trusted: boolean): boolean => {
    const address = parseAddress(text)
    return address !== undefined && (isPublicAddress(address) || addressAllowed(address, port, trusted))
  }

  return {
    check: (url, ownerId) => endpointAllowed(url, trusts(ownerId)) ? "ok" : "forbidden",
    allow: (entry) => void everybodys.push(parseRule(entry)),
    trusts,
    lookupFor: (url, trusted) => {
      if (!endpointAllowed(url, trusted)) return undefined
      const host = hostName(url)
      const port = portOf(url)
      const anywhere = nameAllowed(host, port, trusted)
      return (_hostname, options, callback) =>
        resolve(host, anywhere || isInternalName(host), (error, found) => {
          if (error !== null) return callback(error as NodeJS.ErrnoException, [])
          const family = options.family === "IPv4" ? 4 : options.family === "IPv6" ? 6 : options.family || undefined
          const wanted = family === undefined ? found : found.filter((each) => each.family === family)
          const allowed: ReadonlyArray<LookupAddress> = anywhere ? wanted : wanted.filter((each) => reachable(each.address, port, trusted))
          const first = allowed[0]
          if (first === undefined) return callback(new ForbiddenAddress(host), [])
          if (options.all === true) callback(null, [...allowed])
          else callback(null, first.address, first.family)
        })
    }
  }
}
