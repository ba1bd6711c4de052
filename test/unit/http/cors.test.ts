import { describe, expect, it } from "vitest"
import { readSettings } from "../../../src/config.ts"
import { compileCors } from "../../../src/http/cors.ts"

const corsOf = (env: Record<string, string>) =>
  compileCors(readSettings({ PUBLIC_URL: "https://gate.example/base", ALLOWED_ORIGINS: "https://app.example/", DEMO: "false", ...env }), ["x-limit"])

describe("origins", () => {
  it.each(["https://gate.example", "https://app.example"])("%s may call", (origin) => {
    expect(corsOf({}).allows(origin)).toBe(true)
  })
  it.each(["https://app.example.evil.example", "http://app.example", "https://gate.example:8443", "null", "http://localhost:3000", ""])("%j may not", (origin) => {
    expect(corsOf({}).allows(origin)).toBe(false)
  })
  it.each(["http://localhost", "http://localhost:3000", "http://127.0.0.1:5173"])("%s may in demo", (origin) => {
    expect(corsOf({ DEMO: "true" }).allows(origin)).toBe(true)
  })
  it.each(["http://localhost.evil.example", "http://localhost:3000.evil.example", "http://localhost:", "http://127.0.0.10", "https://localhost:3000"])("%s may not, even in demo", (origin) => {
    expect(corsOf({ DEMO: "true" }).allows(origin)).toBe(false)
  })
  it("all may when the operator says so", () => {
    expect(corsOf({ ALLOWED_ORIGINS: "*" }).allows("https://any.example")).toBe(true)
  })
})

describe("a preflight", () => {
  it("repeats the headers that were asked for only when they are header names", () => {
    const cors = corsOf({})
    const asked = (text: string) => new Map(cors.preflightHeaders(["GET"], text)).get("access-control-allow-headers")
    expect(asked("x-custom, authorization")).toBe("x-custom, authorization")
    expect(asked("x\r\nset-cookie: a")).not.toContain("set-cookie")
  })
})
