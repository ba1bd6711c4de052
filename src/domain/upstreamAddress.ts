/**
 * Which addresses an agent may live at, decided on text alone.
 *
 * An endpoint is a plain http(s) URL without credentials on port 80, 443 or
 * ≥ 1024, whose host is a public name or a globally reachable address. Anything
 * that only this machine, its network or its cloud can reach is refused:
 * otherwise an agent's owner could read the gateway's own neighbourhood through
 * it. IPv6 is an allowlist (global unicast less the special blocks), IPv4 the
 * complement of IANA's special-purpose registry.
 *
 * Host spellings are WHATWG's business: `new URL` turns `0x7f.1`, `2130706433`,
 * `0177.0.0.1` and full-width digits into `127.0.0.1` before they arrive here.
 * A name says nothing about where it leads; `kernel/UpstreamGuard.ts` asks
 * `isPublicAddress` about every address that is about to be connected to.
 */

/** An IP address as a number: 32 bits wide for IPv4, 128 for IPv6. */
export interface Address {
  readonly bits: 32 | 128
  readonly value: bigint
}
/** All addresses that share the first `prefix` bits. */
export interface Network extends Address {
  readonly prefix: number
}

const octet = /^(?:0|[1-9]\d{0,2})$/

const parseV4 = (text: string): bigint | undefined => {
  const parts = text.split(".")
  if (parts.length !== 4) return undefined
  let value = 0n
  for (const part of parts) {
    if (!octet.test(part) || Number(part) > 255) return undefined
    value = value << 8n | BigInt(part)
  }
  return value
}

const hextets = (text: string): ReadonlyArray<bigint> | undefined => {
  if (text === "") return []
  const groups: Array<bigint> = []
  const parts = text.split(":")
  for (const [index, part] of parts.entries()) {
    const embedded = index === parts.length - 1 && part.includes(".") ? parseV4(part) : undefined
    if (embedded !== undefined) groups.push(embedded >> 16n, embedded & 0xffffn)
    else if (/^[0-9a-f]{1,4}$/i.test(part)) groups.push(BigInt(`0x${part}`))
    else return undefined
  }
  return groups
}

const parseV6 = (text: string): bigint | undefined => {
  const halves = text.split("::")
  if (halves.length > 2) return undefined
  const head = hextets(halves[0]!)
  const tail = halves.length === 2 ? hextets(halves[1]!) : []
  if (head === undefined || tail === undefined) return undefined
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  return [...head, ...Array<bigint>(missing).fill(0n), ...tail].reduce((value, group) => value << 16n | group, 0n)
}

/** Reads `192.0.2.1` or `2001:db8::1`, bare or in brackets; `undefined` for names, zones and every other form. */
export const parseAddress = (text: string): Address | undefined => {
  const bare = text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text
  const v6 = bare.includes(":")
  const value = v6 ? parseV6(bare) : parseV4(bare)
  return value === undefined ? undefined : { bits: v6 ? 128 : 32, value }
}

/** Reads CIDR notation. Bits beyond the prefix must be zero, so that a typo is not taken for a larger network. */
export const parseNetwork = (text: string): Network | undefined => {
  const [base, length, ...rest] = text.split("/")
  const address = parseAddress(base ?? "")
  if (address === undefined || length === undefined || rest.length > 0 || !/^\d{1,3}$/.test(length)) return undefined
  const prefix = Number(length)
  if (prefix > address.bits) return undefined
  const network = { ...address, prefix }
  return contains(network, address) && (address.value & (1n << BigInt(address.bits - prefix)) - 1n) === 0n ? network : undefined
}

export const contains = (network: Network, address: Address): boolean => {
  const free = BigInt(network.bits - network.prefix)
  return network.bits === address.bits && network.value >> free === address.value >> free
}

const table = (...networks: ReadonlyArray<string>): ReadonlyArray<Network> => networks.map((text) => parseNetwork(text)!)

const specialV4 = table(
  "0.0.0.0/8", // this network
  "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", // private
  "100.64.0.0/10", // carrier-grade NAT, where Alibaba keeps its metadata
  "127.0.0.0/8", // loopback
  "168.63.129.16/32", // Azure's platform address: public range, reachable from inside only
  "169.254.0.0/16", // link-local, where clouds keep their metadata
  "192.0.0.0/24", // protocol assignments, Oracle's metadata
  "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", // documentation
  "192.88.99.0/24", // 6to4 relays
  "198.18.0.0/15", // benchmarking
  "224.0.0.0/4", // multicast
  "240.0.0.0/4" // reserved and broadcast
)
const globalUnicast = table("2000::/3")[0]!
const specialV6 = table(
  "2001::/23", // protocol assignments: Teredo (embeds IPv4), ORCHID, benchmarking
  "2001:db8::/32", "3fff::/20", // documentation
  "2002::/16" // 6to4: embeds IPv4
)
/** How an IPv6-only host reaches the IPv4 internet; the last 32 bits are judged as IPv4. Every other embedding is refused. */
const nat64 = table("64:ff9b::/96")[0]!

/** Whether the address is one that anybody on the internet could reach. */
export const isPublicAddress = (address: Address): boolean => {
  if (address.bits === 32) return !specialV4.some((network) => contains(network, address))
  if (contains(nat64, address)) return isPublicAddress({ bits: 32, value: address.value & 0xffff_ffffn })
  return contains(globalUnicast, address) && !specialV6.some((network) => contains(network, address))
}

const internalSuffixes = ["localhost", "localdomain", "local", "internal", "home.arpa"]

/** The host of a URL as rules are written: lower case (by `URL`), without brackets and trailing dots. */
export const hostName = (url: URL): string => {
  const host = url.hostname.startsWith("[") ? url.hostname.slice(1, -1) : url.hostname
  return host.replace(/\.+$/, "")
}

/** Names that lead inside by convention (RFC 6761, RFC 6762, RFC 8375, ICANN's private-use `.internal`). */
export const isInternalName = (host: string): boolean =>
  internalSuffixes.some((suffix) => host === suffix || host.endsWith(`.${suffix}`))

/** The port that the URL leads to, its scheme's default included. */
export const portOf = (url: URL): number => url.port === "" ? url.protocol === "https:" ? 443 : 80 : Number(url.port)

/** Ports below 1024 belong to the system services of other hosts: mail, DNS, SSH. */
export const isAllowedPort = (port: number): boolean => port === 80 || port === 443 || port >= 1024

/** What no setting can allow: another scheme, or credentials in the URL. */
export const isPlainHttp = (url: URL): boolean =>
  (url.protocol === "http:" || url.protocol === "https:") && url.username === "" && url.password === ""

/** Whether the URL, taken at its word, leads outside. For a name the resolved address must be asked about as well. */
export const isPublicEndpoint = (url: URL): boolean => {
  if (!isPlainHttp(url) || !isAllowedPort(portOf(url))) return false
  const host = hostName(url)
  const address = parseAddress(host)
  return address === undefined ? host !== "" && !isInternalName(host) : isPublicAddress(address)
}
