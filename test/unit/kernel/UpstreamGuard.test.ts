import type { LookupAddress } from "node:dns"
import { describe, expect, it } from "vitest"
import { BadSetting } from "../../../src/config.ts"
import { ForbiddenAddress, makeUpstreamGuard } from "../../../src/kernel/upstream/UpstreamGuard.ts"
import type { Resolve } from "../../../src/kernel/upstream/UpstreamResolver.ts"

const nowhere: Resolve = (_host, _system, done) => done(new Error("no such name"), [])
const guard = (allow: ReadonlyArray<string>, owners?: ReadonlyArray<string>, resolve = nowhere) =>
  makeUpstreamGuard({ upstreamAllow: allow, upstreamAllowOwners: owners }, resolve)
const check = (made: ReturnType<typeof guard>, url: string, owner = "anybody") => made.check(new URL(url), owner)

describe("UPSTREAM_ALLOW", () => {
  it.each([
    ["10.0.0.0/8", "http://10.1.2.3:9000/", "http://11.1.2.3:22/"],
    ["127.0.0.1", "http://127.0.0.1:22/", "http://127.0.0.2/"],
    ["127.0.0.1:9000", "http://127.0.0.1:9000/", "http://127.0.0.1:9001/"],
    ["localhost:9000", "http://localhost:9000/", "http://localhost:9001/"],
    ["Agents.Internal", "http://agents.internal:22/", "http://a.agents.internal/"],
    ["[::1]:9000", "http://[::1]:9000/", "http://[::1]/"],
    ["::1", "http://[::1]:5432/", "http://[::2]/"],
    ["fd00::/8", "http://[fd12::1]:8080/", "http://[fe80::1]:8080/"],
    ["0x7f000001", "http://127.0.0.1/", "http://127.0.0.2/"],
    ["agent_1:8080", "http://agent_1:8080/", "ftp://agent_1:8080/"],
    ["10.0.0.0/8", "http://agents.internal:9000/", "http://agents.internal:22/"]
  ])("%s allows %s and not %s", (entry, allowed, refused) => {
    const made = guard([entry])
    expect([check(made, allowed), check(made, refused)]).toEqual(["ok", "forbidden"])
  })

  it.each(["10.0.0.1/8", "10.0.0.0/40", "http://a", "a:0", "a:65536", "a:b", "a b", "*.example.com", "[::1", "user@host", "-a", "1.2.3.4.5"])(
    "%j stops the start with a line that names it", (entry) => {
      expect(() => guard(["localhost", entry])).toThrow(BadSetting)
      expect(() => guard([entry])).toThrow(JSON.stringify(entry))
    }
  )

  it("never allows credentials in the URL or another scheme", () => {
    const made = guard(["10.0.0.0/8", "host"])
    for (const url of ["http://u:p@10.0.0.1/", "http://u@host/", "ftp://host/", "file://host/x"]) expect(check(made, url)).toBe("forbidden")
  })

  it("counts for the accounts of UPSTREAM_ALLOW_OWNERS alone", () => {
    const made = guard(["10.0.0.0/8"], ["friend"])
    expect([made.trusts("friend"), made.trusts("stranger")]).toEqual([true, false])
    expect([check(made, "http://10.0.0.1/", "friend"), check(made, "http://10.0.0.1/", "stranger")]).toEqual(["ok", "forbidden"])
  })

  it("makes nobody trusted when it is empty", () => expect(guard([]).trusts("anybody")).toBe(false))
})

describe("allow", () => {
  it("opens one address on one port for every owner", () => {
    const made = guard(["10.0.0.0/8"], ["friend"])
    made.allow("127.0.0.1:9300")
    expect([check(made, "http://127.0.0.1:9300/"), check(made, "http://127.0.0.1:9301/")]).toEqual(["ok", "forbidden"])
  })
})

describe("lookupFor", () => {
  const answering = (...addresses: ReadonlyArray<string>) => {
    const asked: Array<readonly [string, boolean]> = []
    const resolve: Resolve = (host, system, done) => {
      asked.push([host, system])
      done(null, addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })))
    }
    return { asked, resolve }
  }
  const look = (made: ReturnType<typeof guard>, url: string, trusted = false, options: object = { all: true }) => {
    const lookup = made.lookupFor(new URL(url), trusted)
    if (lookup === undefined) return "forbidden"
    let found: unknown
    lookup("ignored", options, (error, addresses) => { found = error ?? addresses })
    return found
  }
  const texts = (found: unknown) => (found as ReadonlyArray<LookupAddress>).map((each) => each.address)

  it.each(["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%eth0", "64:ff9b::7f00:1", "not an address"])(
    "refuses a public name that leads to %s", (address) => {
      expect(look(guard([], undefined, answering(address).resolve), "https://agents.example.com/")).toBeInstanceOf(ForbiddenAddress)
    }
  )

  it("gives the socket only the allowed of a name's addresses, in the form it asks for", () => {
    const { resolve } = answering("10.0.0.1", "93.184.216.34", "2606:2800::1")
    const made = guard([], undefined, resolve)
    expect(texts(look(made, "https://agents.example.com/"))).toEqual(["93.184.216.34", "2606:2800::1"])
    expect(look(made, "https://agents.example.com/", false, {})).toBe("93.184.216.34")
    expect(texts(look(made, "https://agents.example.com/", false, { all: true, family: 6 }))).toEqual(["2606:2800::1"])
  })

  it("lets a listed network in through any name, on its port, for trusted owners", () => {
    const made = guard(["10.0.0.1:9000"], undefined, answering("10.0.0.1").resolve)
    expect(texts(look(made, "http://agents.example.com:9000/", true))).toEqual(["10.0.0.1"])
    expect(look(made, "http://agents.example.com:9001/", true)).toBeInstanceOf(ForbiddenAddress)
    expect(look(made, "http://agents.example.com:9000/", false)).toBeInstanceOf(ForbiddenAddress)
  })

  it("lets a listed name lead anywhere, by the system's resolver; strangers' names go to DNS", () => {
    const { asked, resolve } = answering("10.0.0.1")
    const made = guard(["agent.corp"], undefined, resolve)
    expect(texts(look(made, "http://agent.corp/", true))).toEqual(["10.0.0.1"])
    look(made, "http://agents.example.com/", true)
    expect(asked).toEqual([["agent.corp", true], ["agents.example.com", false]])
  })

  it("judges the URL again: a stored address that is no longer allowed is not looked up", () => {
    const { asked, resolve } = answering("93.184.216.34")
    for (const url of ["http://127.0.0.1/", "http://localhost/", "http://agents.example.com:22/"]) expect(look(guard([], undefined, resolve), url)).toBe("forbidden")
    expect(asked).toEqual([])
  })

  it("passes the resolver's error on", () => expect(look(guard([]), "https://agents.example.com/")).toEqual(new Error("no such name")))
})
