import fc from "fast-check"
import { BlockList } from "node:net"
import { describe, expect, it } from "vitest"
import { contains, hostName, isPublicAddress, isPublicEndpoint, parseAddress, parseNetwork } from "../../../src/domain/upstreamAddress.ts"

const seed = Number(process.env["SEED"] ?? Date.now() % 2 ** 31)

describe("isPublicEndpoint", () => {
  it.each([
    "https://agents.example.com/run", "http://agents.example.com", "http://agents.example.com:8080/", "https://agents.example.com:1024", "http://93.184.216.34/",
    "http://[2606:2800:220:1:248:1893:25c8:1946]/", "http://[64:ff9b::5db8:d822]/", "http://localhost.example.com/", "http://mylocal/", "http://172.32.0.1/",
    "http://192.167.255.255/", "http://100.128.0.1/", "http://1.1.1.1:443/", "http://internal.example.com"
  ])("accepts %s", (url) => expect(isPublicEndpoint(new URL(url))).toBe(true))

  it.each([
    // other schemes and credentials
    "ftp://agents.example.com/", "file:///etc/passwd", "ws://agents.example.com/", "gopher://agents.example.com/",
    "http://user@agents.example.com/", "http://user:pw@agents.example.com/", "http://:pw@agents.example.com/",
    // ports of other services
    "http://agents.example.com:22/", "http://agents.example.com:25/", "http://agents.example.com:1023/", "http://agents.example.com:0/",
    // loopback, in every spelling
    "http://127.0.0.1/", "http://127.1/", "http://127.255.255.254/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/",
    "http://017700000001/", "http://127.0.0.1./", "http://１２７.０.０.１/", "http://127%2e0%2e0%2e1/", "http://0/", "http://0.0.0.0/",
    "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[::127.0.0.1]/", "http://[0:0:0:0:0:0:0:1]/",
    // private, link-local, metadata, shared, reserved
    "http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://0xa9fea9fe/",
    "http://100.64.0.1/", "http://100.100.100.200/", "http://168.63.129.16/", "http://192.0.0.192/", "http://192.0.2.1/", "http://198.51.100.1/", "http://203.0.113.1/",
    "http://198.18.0.1/", "http://224.0.0.1/", "http://239.255.255.255/", "http://240.0.0.1/", "http://255.255.255.255/",
    "http://[fe80::1]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[2001:db8::1]/", "http://[3fff::1]/", "http://[fec0::1]/", "http://[100::1]/",
    // IPv4 inside IPv6
    "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::10.0.0.1]/", "http://[64:ff9b:1::7f00:1]/", "http://[2002:7f00:1::]/", "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/", "http://[::ffff:8.8.8.8]/", "http://[::ffff:0:127.0.0.1]/",
    // names that lead inside
    "http://localhost/", "http://LOCALHOST:8080/", "http://localhost./", "http://localhost../", "http://a.localhost/", "http://metadata.google.internal/",
    "http://host.docker.internal:8080/", "http://printer.local/", "http://localhost.localdomain/", "http://router.home.arpa/"
  ])("refuses %s", (url) => expect(isPublicEndpoint(new URL(url))).toBe(false))
})

describe("parseAddress", () => {
  it.each(["", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4 ", "1:2", "::1::", "1:2:3:4:5:6:7:8:9", ":1:2:3:4:5:6:7", "12345::", "fe80::1%eth0", "g::1", "1::2:3:4:5:6:7:8", "::1.2.3", "example.com"])(
    "does not take %j for an address", (text) => expect(parseAddress(text)).toBeUndefined()
  )
  it("reads every address as URL writes it", () => {
    fc.assert(fc.property(fc.ipV6(), (text) => {
      const canonical = hostName(new URL(`http://[${text}]/`))
      expect(parseAddress(text)).toEqual(parseAddress(canonical))
      expect(parseAddress(canonical)).toBeDefined()
    }), { seed })
    fc.assert(fc.property(fc.ipV4(), (text) => {
      expect(parseAddress(hostName(new URL(`http://${text}/`)))).toEqual(parseAddress(text))
    }), { seed })
  })
})

describe("parseNetwork", () => {
  it.each(["10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/8/8", "fd00::/129", "fd00::1/64", "example.com/8", "/8", "10.0.0.0/-1", "10.0.0.0/1e1"])(
    "refuses %j", (text) => expect(parseNetwork(text)).toBeUndefined()
  )
  it("contains what node:net says it contains", () => {
    const prefixes = fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 }))
    fc.assert(fc.property(prefixes, fc.ipV4(), fc.boolean(), ([base, prefix], other, near) => {
      const value = parseAddress(base)!.value
      const free = BigInt(32 - prefix)
      const network = { bits: 32 as const, value: value >> free << free, prefix }
      const list = new BlockList()
      list.addSubnet(dotted(network.value), prefix, "ipv4")
      const address = near ? dotted(network.value | (parseAddress(other)!.value & (1n << free) - 1n)) : other
      expect(contains(network, parseAddress(address)!)).toBe(list.check(address, "ipv4"))
    }), { seed, numRuns: 1_000 })
  })
})

describe("isPublicAddress", () => {
  it("agrees with a block list of node:net on any address", () => {
    const list = new BlockList()
    for (const [net, prefix] of [
      ["0.0.0.0", 8], ["10.0.0.0", 8], ["100.64.0.0", 10], ["127.0.0.0", 8], ["168.63.129.16", 32], ["169.254.0.0", 16], ["172.16.0.0", 12], ["192.0.0.0", 24],
      ["192.0.2.0", 24], ["192.88.99.0", 24], ["192.168.0.0", 16], ["198.18.0.0", 15], ["198.51.100.0", 24], ["203.0.113.0", 24], ["224.0.0.0", 3]
    ] as const) list.addSubnet(net, prefix, "ipv4")
    const edges = fc.constantFrom(...["10", "11", "100.63", "100.64", "100.127", "100.128", "126", "127", "128", "169.254", "172.15", "172.16", "172.31", "172.32", "192.168", "198.18", "198.20", "223", "224"])
    const near = fc.tuple(edges, fc.constantFrom("0", "255")).map(([start, fill]) => [...start.split("."), fill, fill, fill].slice(0, 4).join("."))
    fc.assert(fc.property(fc.oneof(fc.ipV4(), near), (address) => {
      expect(isPublicAddress(parseAddress(address)!)).toBe(!list.check(address, "ipv4"))
    }), { seed, numRuns: 2_000 })
  })
  it("is false for every IPv6 address outside global unicast that is not a translated public IPv4 address", () => {
    fc.assert(fc.property(fc.ipV6(), (text) => {
      const address = parseAddress(text)!
      const translated = address.value >> 32n === 0x64ff9b0000000000000000n
      if (!translated && address.value >> 125n !== 1n) expect(isPublicAddress(address)).toBe(false)
    }), { seed, numRuns: 1_000 })
  })
})

const dotted = (value: bigint): string => [24n, 16n, 8n, 0n].map((shift) => String(value >> shift & 255n)).join(".")
