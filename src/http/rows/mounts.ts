/**
 * Where everything is: the paths of every dialect, the gateway's own pages beside
 * them, and the host names that stand for one dialect. Compiled once at boot.
 *
 * A host whose first label is a dialect's name, or that `DIALECT_HOSTS` names,
 * has that dialect at its native paths, plus those pages whose paths it doesn't
 * use itself, and its description at `/openapi.json`.
 */
import type { Settings } from "../../config.ts"
import { BadSetting } from "../../config.ts"
import type { Dialect } from "../dialect.ts"
import type { Row } from "../endpoint.ts"
import { ownedNames } from "../headers.ts"
import { compileRoutes, type RouteEntry, type Router } from "../router.ts"
import { endpointTarget } from "./serveEndpoint.ts"
import { relayTarget } from "./serveRelay.ts"
import { socketTarget } from "./serveSocket.ts"
import { streamTarget } from "./serveStream.ts"
import type { Target } from "./Target.ts"

export interface Mount {
  readonly router: Router<Target>
  /** Whose words an unknown path is refused in. */
  dialectAt(path: string): Dialect | undefined
}

/** Host headers remembered with their mount. They come from strangers: above this many each is looked up anew. */
const hostsMax = 1_024

const targetOf = (dialect: Dialect, row: Row, owned: ReadonlyArray<string>): Target => {
  switch (row.kind) {
    case "endpoint":
      return endpointTarget(dialect, row)
    case "relay":
      return relayTarget(dialect, row, owned)
    case "stream":
      return streamTarget(dialect, row)
    case "socket":
      return socketTarget(dialect, row)
  }
}

const isBelow = (path: string, prefix: string): boolean =>
  path.startsWith(prefix) && (path.length === prefix.length || path.charCodeAt(prefix.length) === 47)

interface Made {
  readonly dialect: Dialect
  readonly rows: ReadonlyArray<readonly [Row, Target]>
  readonly rootRows: ReadonlyArray<readonly [Row, Target]>
}

const make = (dialect: Dialect, settings: Settings): Made => {
  const owned = ownedNames([...dialect.rateHeaders({ limit: 1, remaining: 1, resetMs: 1 }), ...dialect.answerHeaders?.(settings) ?? []])
  const targets = new Map([...dialect.rows, ...(dialect.rootRows ?? [])].map((row) => [row, targetOf(dialect, row, owned)]))
  const withTarget = (row: Row): readonly [Row, Target] => [row, targets.get(row)!]
  return { dialect, rows: dialect.rows.map(withTarget), rootRows: (dialect.rootRows ?? []).map(withTarget) }
}

/** A relay with a tail is also there without one. */
const pathsOf = (row: Row): ReadonlyArray<string> => row.kind === "relay" && /\/\{\w+\*\}$/.test(row.path) ? [row.path, row.path.replace(/\/[^/]+$/, "")] : [row.path]

const entriesAt = (rows: Made["rows"], prefix: string): ReadonlyArray<RouteEntry<Target>> =>
  rows.flatMap(([row, target]) => pathsOf(row).map((path) => ({ method: row.method, path: `${prefix}${path}`, target })))

export interface Mounts {
  at(host: string): Mount
  readonly targets: ReadonlyArray<Target>
}

export const compileMounts = (
  dialects: ReadonlyArray<Dialect>,
  pages: ReadonlyArray<RouteEntry<Target>>,
  settings: Settings
): Mounts => {
  const made = dialects.map((dialect) => make(dialect, settings))
  const everywhere = [...pages, ...made.flatMap(({ rootRows }) => entriesAt(rootRows, ""))]
  const prefixes = dialects.flatMap((dialect) => dialect.mounts.map((prefix) => ({ prefix, dialect })))
    .sort((a, b) => b.prefix.length - a.prefix.length)
  const main: Mount = {
    router: compileRoutes([...everywhere, ...made.flatMap(({ dialect, rows }) => dialect.mounts.flatMap((prefix) => entriesAt(rows, prefix)))]),
    dialectAt: (path) => prefixes.find(({ prefix }) => isBelow(path, prefix))?.dialect
  }

  const own = new Map(made.map(({ dialect, rows }): [string, Mount] => {
    const entries = (dialect.hostMounts ?? dialect.mounts).flatMap((prefix) => entriesAt(rows, prefix))
    const description = everywhere.filter(({ path }) => path === `/${dialect.name}/openapi.json`).map((entry) => ({ ...entry, path: "/openapi.json" }))
    const taken = new Set(entries.map(({ method, path }) => `${method} ${path}`))
    const router = compileRoutes([...entries, ...description, ...everywhere.filter(({ method, path }) => !taken.has(`${method} ${path}`))])
    return [dialect.name, { router, dialectAt: () => dialect }]
  }))
  for (const [host, name] of settings.dialectHosts) {
    if (!own.has(name)) throw new BadSetting(`DIALECT_HOSTS="${host}=${name}" is not allowed: the dialects are ${[...own.keys()].join(", ")}`)
  }

  const lookUp = (header: string): Mount => {
    const host = header.toLowerCase().replace(/:\d*$/, "")
    const name = settings.dialectHosts.get(host) ?? host.slice(0, host.includes(".") ? host.indexOf(".") : undefined)
    return own.get(name) ?? main
  }
  const known = new Map<string, Mount>()
  return {
    at: (header) => {
      const mount = known.get(header) ?? lookUp(header)
      if (known.size < hostsMax) known.set(header, mount)
      return mount
    },
    targets: [...new Set([...everywhere.map(({ target }) => target), ...made.flatMap(({ rows }) => rows.map(([, target]) => target))])]
  }
}
