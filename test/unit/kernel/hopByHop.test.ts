import { describe, expect, it } from "vitest"
import { AnswerFilter, requestHeaders } from "../../../src/kernel/upstream/hopByHop.ts"

describe("headers to the agent", () => {
  it("pass unchanged and in order, repeated ones too", () => {
    expect(requestHeaders([["accept-encoding", "br, gzip"], ["x-a", "1"], ["content-type", "text/plain"], ["x-a", "2"], ["content-encoding", "gzip"]], [])).toEqual(
      ["accept-encoding", "br, gzip", "x-a", "1", "content-type", "text/plain", "x-a", "2", "content-encoding", "gzip"]
    )
  })

  it.each([
    "connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authorization", "proxy-authenticate", "content-length", "host",
    "expect", "http2-settings", "authorization", "cookie", "x-api-key", "idempotency-key", "forwarded", "x-real-ip", "x-forwarded-for", "x-forwarded-anything"
  ])("%s stays here", (name) => expect(requestHeaders([[name, "close"], ["x-a", "1"]], [])).toEqual(["x-a", "1"]))

  it("that Connection names stay here, also when it comes twice", () => {
    const received = [["connection", "Keep-Alive, X-Hop"], ["x-hop", "1"], ["x-stay", "2"], ["connection", "x-other"], ["x-other", "3"]] as const
    expect(requestHeaders(received, [])).toEqual(["x-stay", "2"])
  })

  it("of the gateway replace the caller's, and its reserved prefix is its own", () => {
    const received = [["x-autx-request-id", "forged"], ["x-autx-user", "admin"], ["content-type", "a/b"], ["authorization", "Bearer caller"]] as const
    expect(requestHeaders(received, [["authorization", "Bearer agent"], ["content-type", "c/d"], ["x-autx-request-id", "r1"]], "x-autx-")).toEqual(
      ["authorization", "Bearer agent", "content-type", "c/d", "x-autx-request-id", "r1"]
    )
  })

  it.each(["a\r\nx-evil: 1", "a\nb", "a\0b", "\x7f", "a\u0001"])("with the value %j are dropped", (value) => {
    expect(requestHeaders([["x-a", value], ["x-b", "1"]], [])).toEqual(["x-b", "1"])
  })

  it.each(["", "x a", "x:a", "x\r\n", "é", "x(", "x\u0000"])("with the name %j are dropped", (name) => expect(requestHeaders([[name, "1"]], [])).toEqual([]))

  it("above ASCII go out as the bytes that came in", () => {
    const [, value] = requestHeaders([["x-name", "Žofie ✓\tok"]], [])
    expect(Buffer.from(value!, "latin1").toString("utf8")).toBe("Žofie ✓\tok")
  })
})

describe("headers of an answer", () => {
  it("pass, less connection headers, those of the shared origin and the dialect's own", () => {
    const filter = new AnswerFilter(["set-cookie", "x-autx-*"])
    const headers = filter.apply([
      "Content-Type", "text/html", "Content-Length", "12", "Connection", "close, X-Hop", "X-Hop", "1", "Transfer-Encoding", "chunked", "Trailer", "x", "Keep-Alive", "timeout=5",
      "Set-Cookie", "a=b", "X-Autx-Cost-Usd", "0", "Server-Timing", "db;dur=1", "Alt-Svc", "h3=\":443\"", "Strict-Transport-Security", "max-age=1",
      "Clear-Site-Data", "\"*\"", "Access-Control-Allow-Origin", "*", "Vary", "accept", "Vary", "origin"
    ].map((text, i) => i % 2 === 0 ? text.toLowerCase() : text))
    expect(headers).toEqual([["content-type", "text/html"], ["server-timing", "db;dur=1"], ["vary", "accept"], ["vary", "origin"]])
  })

  it("keep cookies where the dialect passes them on", () => {
    expect(new AnswerFilter([]).apply(["set-cookie", "a=b"])).toEqual([["set-cookie", "a=b"]])
  })

  it("give the agent's UTF-8 back", () => {
    expect(new AnswerFilter([]).apply(["x-name", Buffer.from("Žofie").toString("latin1")])).toEqual([["x-name", "Žofie"]])
  })
})
