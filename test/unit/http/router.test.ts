import { describe, expect, it } from "vitest"
import { compileRoutes } from "../../../src/http/router.ts"

const paths: ReadonlyArray<readonly [string, string]> = [
  ["GET", "/"],
  ["GET", "/agents/"],
  ["POST", "/agents"],
  ["GET", "/agents/new"],
  ["GET", "/agents/{id}"],
  ["DELETE", "/agents/{id}"],
  ["GET", "/agents/{id}/keys/{key}"],
  ["GET", "/agents/new/keys"],
  ["GET", "/files/{path*}"],
  ["PUT", "/raw/*"],
  ["POST", "/v1/proxy/{agent}"]
]
const router = compileRoutes(paths.map(([method, path]) => ({ method, path, target: `${method} ${path}` })))

const found: ReadonlyArray<readonly [request: string, target: string, params: Record<string, string>]> = [
  ["GET /", "GET /", {}],
  ["GET /agents", "GET /agents/", {}],
  ["GET /agents/", "GET /agents/", {}],
  ["HEAD /agents", "GET /agents/", {}],
  ["POST /agents/", "POST /agents", {}],
  ["GET /agents/new", "GET /agents/new", {}],
  ["DELETE /agents/new", "DELETE /agents/{id}", { id: "new" }],
  ["GET /agents/ECHO/", "GET /agents/{id}", { id: "ECHO" }],
  ["GET /agents/a%20b%2Fc", "GET /agents/{id}", { id: "a b/c" }],
  ["GET /agents/__proto__", "GET /agents/{id}", { id: "__proto__" }],
  ["GET /agents/new/keys", "GET /agents/new/keys", {}],
  ["GET /agents/new/keys/7", "GET /agents/{id}/keys/{key}", { id: "new", key: "7" }],
  ["GET /files/a/b%20c/d", "GET /files/{path*}", { path: "a/b%20c/d" }],
  ["PUT /raw/x/y", "PUT /raw/*", { "*": "x/y" }],
  ["POST /v1/proxy/%E2%82%AC", "POST /v1/proxy/{agent}", { agent: "€" }]
]

describe("the router", () => {
  it.each(found)("sends %s to %s", (request, target, params) => {
    const [method, path] = request.split(" ") as [string, string]
    expect(router.match(method, path)).toEqual({ kind: "found", target, params })
  })

  it.each(["/nothing", "/agents/a/b", "/agents//keys/7", "/files", "/files/", "/v1/proxy/", "///", "/agents/new/keys/7/8", "/AGENTS"])(
    "has nothing at %s", (path) => {
      expect(router.match("GET", path)).toBeUndefined()
      expect(router.methods(path)).toEqual([])
    })

  it("names every method of a path that is asked with another", () => {
    expect(router.match("PATCH", "/agents/new")).toMatchObject({ kind: "methodNotAllowed", allow: ["DELETE", "GET", "HEAD"] })
    expect(router.match("GET", "/raw/x")).toMatchObject({ kind: "methodNotAllowed", allow: ["PUT"] })
  })

  it.each(["%", "%zz", "%c3%28", "%00", "a%00b", "%ed%a0%80"])("calls the parameter %s malformed", (segment) => {
    expect(router.match("GET", `/agents/${segment}`)).toMatchObject({ kind: "malformed", param: "id" })
  })

  it("refuses a table that claims a route twice", () => {
    const twice = [{ method: "GET", path: "/a/{x}", target: 1 }, { method: "GET", path: "/a/{y}/", target: 2 }]
    expect(() => compileRoutes(twice)).toThrow("GET /a/{y}/ is routed twice")
  })

  it("refuses a tail that is not the last segment", () => {
    expect(() => compileRoutes([{ method: "GET", path: "/a/*/b", target: 1 }])).toThrow("must be the last segment")
  })
})
