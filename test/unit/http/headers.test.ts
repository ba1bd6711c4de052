import { describe, expect, it } from "vitest"
import type { HttpRequest } from "uWebSockets.js"
import { isSafeValue, problemOf, readHead, statusLine } from "../../../src/http/headers.ts"

const requestOf = (headers: ReadonlyArray<readonly [string, string]>, url = "/x", query: string | undefined = undefined) => ({
  getCaseSensitiveMethod: () => "POST",
  getUrl: () => url,
  getQuery: () => query,
  forEach: (take: (name: string, value: string) => void) => headers.forEach(([name, value]) => take(name, value))
}) as unknown as HttpRequest

const host = ["host", "a"] as const
const limits = { urlBytesMax: 100, headersBytesMax: 100 }

describe("a request's head", () => {
  it("keeps every header in order, repeated names too", () => {
    const head = readHead(requestOf([host, ["x-a", "1"], ["x-a", "2"], ["authorization", "Bearer k"]]))
    expect(head.headers).toEqual([["host", "a"], ["x-a", "1"], ["x-a", "2"], ["authorization", "Bearer k"]])
    expect(head.authorization).toBe("Bearer k")
    expect(head.query).toBe("")
  })

  it("keeps what nodes write for each other apart, and counts it", () => {
    const head = readHead(requestOf([host, ["x-tollgate-hop", "s"], ["x-tollgate-hop-anything", "t"], ["x-tollgate", "u"]]))
    expect(head.headers).toEqual([["host", "a"], ["x-tollgate", "u"]])
    expect(head.hop).toEqual({ "x-tollgate-hop": "s", "x-tollgate-hop-anything": "t" })
    expect(head.headersBytes).toBe(5 + 15 + 24 + 11)
  })

  it("tells no body, an announced length and chunks apart", () => {
    expect(readHead(requestOf([host])).contentLength).toBe(0)
    expect(readHead(requestOf([host, ["content-length", "7"]])).contentLength).toBe(7)
    expect(readHead(requestOf([host, ["transfer-encoding", "chunked"]])).contentLength).toBeUndefined()
  })

  it.each([
    ["no host", []],
    ["an empty host", [["host", ""]]],
    ["two hosts", [host, ["host", "b"]]],
    ["two lengths, even equal ones", [host, ["content-length", "3"], ["content-length", "3"]]],
    ["a negative length", [host, ["content-length", "-3"]]],
    ["a length with a suffix", [host, ["content-length", "3abc"]]],
    ["a list of lengths", [host, ["content-length", "3, 3"]]],
    ["an empty length", [host, ["content-length", ""]]],
    ["a length and chunks", [host, ["content-length", "3"], ["transfer-encoding", "chunked"]]],
    ["an encoding other than chunked", [host, ["transfer-encoding", "gzip"]]],
    ["an encoding before chunked", [host, ["transfer-encoding", "gzip, chunked"]]],
    ["two encodings", [host, ["transfer-encoding", "chunked"], ["transfer-encoding", "chunked"]]],
    ["two credentials", [host, ["authorization", "a"], ["authorization", "b"]]]
  ] as ReadonlyArray<readonly [string, ReadonlyArray<readonly [string, string]>]>)("is refused with %s", (_, headers) => {
    expect(problemOf(readHead(requestOf(headers)), limits)).toMatchObject({ _tag: "InvalidRequest", malformed: true })
  })

  it("is refused when path and query are too long together", () => {
    expect(problemOf(readHead(requestOf([host], "/".padEnd(60, "a"), "b".repeat(41))), limits)).toMatchObject({ _tag: "InvalidRequest" })
    expect(problemOf(readHead(requestOf([host], "/".padEnd(60, "a"), "b".repeat(40))), limits)).toBeUndefined()
  })
})

describe("a request's headers", () => {
  it("are refused when names and values are too long together", () => {
    const headers = (bytes: number) => readHead(requestOf([host, ["x-a", "a".repeat(bytes - 8)]]))
    expect(problemOf(headers(101), limits)).toMatchObject({ _tag: "InvalidRequest", malformed: true, issues: [{ loc: ["header"] }] })
    expect(problemOf(headers(100), limits)).toBeUndefined()
  })
})

describe("a value", () => {
  it.each(["a\r\nset-cookie: x", "a\nb", "a\rb", "a\0b"])("%j would end its header", (value) => {
    expect(isSafeValue(value)).toBe(false)
  })
})

describe("a status line", () => {
  it("has the standard phrase, or says that there is none", () => {
    expect(statusLine(404)).toBe("404 Not Found")
    expect(statusLine(299)).toBe("299 Unknown")
    expect(statusLine(7_000)).toBe("500 Internal Server Error")
  })
})
