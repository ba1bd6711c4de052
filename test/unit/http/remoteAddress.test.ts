import { describe, expect, it } from "vitest"
import { addressText, trustProxies } from "../../../src/http/address/remoteAddress.ts"

describe("a peer's address", () => {
  it.each([
    [[127, 0, 0, 1], "127.0.0.1"],
    [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 7], "10.0.0.7"],
    [[0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "2001:db8::1"],
    [[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "::1"]
  ])("%j reads %s", (bytes, text) => {
    expect(addressText(Uint8Array.from(bytes).buffer)).toBe(text)
  })
})

describe("x-forwarded-for", () => {
  const remote = trustProxies(["10.0.0.0/8", "2001:db8::/32"])
  it.each([
    ["a stranger's claim is ignored", "203.0.113.9", "1.1.1.1", "203.0.113.9"],
    ["the rightmost untrusted hop counts", "10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"],
    ["ports and brackets are no part of it", "2001:db8::1", "[2001:4860::8888]:443", "2001:4860::8888"],
    ["a v4 port is no part of it", "10.0.0.1", "203.0.113.9:4711", "203.0.113.9"],
    ["a mapped address is its v4 self", "10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"],
    ["text that is no address ends the walk", "10.0.0.1", "203.0.113.9, unknown, 10.0.0.3", "10.0.0.3"],
    ["only trusted hops: the first of them", "10.0.0.1", "10.0.0.5, 10.0.0.4", "10.0.0.5"],
    ["nothing forwarded: the peer", "10.0.0.1", "", "10.0.0.1"]
  ])("%s", (_, peer, forwardedFor, address) => {
    expect(remote(peer, forwardedFor)).toBe(address)
  })

  it.each(["proxy.example", "10.0.0.0/33", "10.0.0.0/a", "10.0.0.0/8/8"])("%s stops the start", (entry) => {
    expect(() => trustProxies([entry])).toThrow("TRUSTED_PROXIES")
  })
})
