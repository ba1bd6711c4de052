/**
 * Who is at the other end. The peer's own address, unless `TRUSTED_PROXIES`
 * names the peer: then the rightmost entry of `x-forwarded-for` that is not
 * itself trusted. Entries left of it were written by strangers and are never
 * believed.
 */
import { BlockList, isIP } from "node:net"
import { BadSetting } from "../../config.ts"

/** Text of uWS's 4 or 16 bytes; a v4 address mapped into v6 is given as v4. */
export const addressText = (binary: ArrayBuffer): string => {
  const bytes = new Uint8Array(binary)
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`
  if (bytes.length !== 16) return ""
  const mapped = bytes[10] === 255 && bytes[11] === 255 && bytes.subarray(0, 10).every((byte) => byte === 0)
  if (mapped) return `${bytes[12]}.${bytes[13]}.${bytes[14]}.${bytes[15]}`
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i]! << 8) | bytes[2 * i + 1]!).toString(16))
  return new URL(`http://[${groups.join(":")}]`).hostname.slice(1, -1)
}

/** One entry of `x-forwarded-for` without its port and brackets; `undefined` when it is no address. */
const entryAddress = (entry: string): string | undefined => {
  const text = entry.trim()
  const bare = text.startsWith("[") ? text.slice(1, text.indexOf("]")) : isIP(text) === 0 ? text.replace(/:\d+$/, "") : text
  const address = bare.toLowerCase().startsWith("::ffff:") && isIP(bare.slice(7)) === 4 ? bare.slice(7) : bare
  return isIP(address) === 0 ? undefined : address
}

/** Compiles `TRUSTED_PROXIES` (addresses and CIDR blocks); a bad entry stops the start. */
export const trustProxies = (entries: ReadonlyArray<string>): (peer: string, forwardedFor: string) => string => {
  const trusted = new BlockList()
  for (const entry of entries) {
    const [address = "", bits, ...rest] = entry.split("/")
    const family = isIP(address) === 6 ? "ipv6" : "ipv4"
    const most = family === "ipv6" ? 128 : 32
    const prefix = bits === undefined ? most : /^\d{1,3}$/.test(bits) ? Number(bits) : NaN
    if (isIP(address) === 0 || rest.length > 0 || !(prefix <= most)) {
      throw new BadSetting(`TRUSTED_PROXIES=${JSON.stringify(entry)} is not allowed: addresses and CIDR blocks separated by commas`)
    }
    trusted.addSubnet(address, prefix, family)
  }
  const isTrusted = (address: string): boolean => trusted.check(address, isIP(address) === 6 ? "ipv6" : "ipv4")

  return (peer, forwardedFor) => {
    if (entries.length === 0 || forwardedFor === "" || !isTrusted(peer)) return peer
    const hops = forwardedFor.split(",")
    let nearest = peer
    for (let i = hops.length - 1; i >= 0; i--) {
      const hop = entryAddress(hops[i]!)
      if (hop === undefined) return nearest
      nearest = hop
      if (!isTrusted(hop)) return hop
    }
    return nearest
  }
}
