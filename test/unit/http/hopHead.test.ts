import { describe, expect, it } from "vitest"
import type { IncomingMessage } from "node:http"
import { RequestHead } from "../../../src/http/headers.ts"
import { toCaller, toldOf, toOwner } from "../../../src/http/hop/hopHead.ts"

const told = { requestId: "r", address: "10.0.0.1" }
const own = ["x-tollgate-hop", "secret", "x-tollgate-hop-address", "10.0.0.1", "x-tollgate-hop-request-id", "r"]

const headOf = (method: string, ...headers: ReadonlyArray<readonly [string, string]>): RequestHead => {
  const head = new RequestHead(method, "/x", "")
  head.headers.push(...headers)
  return head
}

describe("a head for the owner", () => {
  it("has all that the caller sent but what is its connection's, which is told apart", () => {
    const head = headOf("POST", ["host", "a"], ["connection", "keep-alive, x-mine"], ["x-mine", "1"], ["authorization", "Bearer k"], ["te", "trailers"], ["expect", "100-continue"], ["content-length", "9"], ["connection", "close"])
    expect(toOwner(head, told, "secret", 2)).toEqual(["host", "a", "x-mine", "1", "authorization", "Bearer k", ...own, "x-tollgate-hop-connection", "keep-alive, x-mine,close", "content-length", "2"])
  })

  it("says how long the body is, or that it comes in chunks, and nothing of a GET without one", () => {
    expect(toOwner(headOf("POST"), told, "secret", undefined)).toEqual([...own, "transfer-encoding", "chunked"])
    expect(toOwner(headOf("DELETE"), told, "secret", 0)).toEqual([...own, "content-length", "0"])
    expect(toOwner(headOf("GET", ["content-length", "0"]), told, "secret", 0)).toEqual(own)
  })

  it("brings bytes above ASCII as they came, and is none with a control character or a name that is no token", () => {
    expect(toOwner(headOf("GET", ["x-a", "é"]), told, "secret", 0)?.slice(0, 2)).toEqual(["x-a", "\xc3\xa9"])
    for (const header of [["x-a", "a\x7f"], ["x-a", "a\r\nb: c"], [":", "a"], ["connection", "a\0"]] as const) expect(toOwner(headOf("GET", header), told, "secret", 0)).toBeUndefined()
  })
})

describe("what a node tells", () => {
  const sent = (hop: Record<string, string>): RequestHead => Object.assign(headOf("GET", ["connection", "keep-alive"]), { hop })
  const full = { "x-tollgate-hop": "secret", "x-tollgate-hop-address": "10.0.0.1", "x-tollgate-hop-request-id": "r" }

  it("is believed with the secret only, and when it is complete", () => {
    expect(toldOf(sent(full), "secret")).toEqual(told)
    for (const wrong of [{ "x-tollgate-hop": "secreT" }, { "x-tollgate-hop": "" }, { "x-tollgate-hop": "secret " }]) expect(toldOf(sent({ ...full, ...wrong }), "secret")).toBeUndefined()
    for (const name of Object.keys(full)) expect(toldOf(sent(Object.fromEntries(Object.entries(full).filter(([each]) => each !== name))), "secret")).toBeUndefined()
    expect(toldOf(headOf("GET"), "secret")).toBeUndefined()
  })

  it("gives back what the caller's connection named", () => {
    const head = sent({ ...full, "x-tollgate-hop-connection": "x-mine" })
    toldOf(head, "secret")
    expect(head.headers).toEqual([["connection", "keep-alive"], ["connection", "x-mine"]])
  })
})

it("an owner's answer keeps its headers, but for its connection's and what is between nodes", () => {
  const rawHeaders = ["X-RateLimit-Limit", "60", "Date", "now", "uWebSockets", "20", "Content-Length", "3", "Connection", "close", "x-word", "\xc3\xa9", "X-Tollgate-Hop-Not-Mine", "1"]
  expect(toCaller({ rawHeaders } as IncomingMessage)).toEqual([["X-RateLimit-Limit", "60"], ["x-word", "é"]])
})
