/**
 * From `(method, path)` to the route that serves it. Compiled once at boot and
 * never changed; a match allocates nothing but its parameters.
 *
 * A path without parameters is one map look-up. Others walk a trie by segment:
 * literal before parameter before tail (`*`, `{name*}`: the rest of the path),
 * going back when a more literal branch has no route for the method. One
 * trailing slash is ignored, no redirect. HEAD falls back to GET.
 *
 * Parameters arrive percent-decoded. What can't be decoded, or holds a NUL, is
 * `malformed`, never passed on. A tail arrives as it was written, its trailing
 * slash too, since it is another server's path; one with a segment `.` or `..`,
 * in whatever spelling, is `malformed`: it would leave what it is the tail of.
 */

export interface RouteEntry<T> {
  readonly method: string
  /** `/agents/{id}`, `/files/{path*}`, `/files/*`. */
  readonly path: string
  readonly target: T
}

export type Match<T> =
  | { readonly kind: "found"; readonly target: T; readonly params: Readonly<Record<string, string>> }
  | { readonly kind: "malformed"; readonly target: T; readonly param: string }
  | { readonly kind: "methodNotAllowed"; readonly allow: ReadonlyArray<string>; readonly target: T }

export interface Router<T> {
  /** `undefined`: no route has this path. `path` without the query. */
  match(method: string, path: string): Match<T> | undefined
  /** Every method that the path answers to. */
  methods(path: string): ReadonlyArray<string>
}

interface Leaf<T> {
  readonly target: T
  /** Its last parameter is the rest of the path. */
  readonly isTail: boolean
  /** Names of the parameters on the way, in path order. */
  readonly names: ReadonlyArray<string>
}

class Node<T> {
  readonly literals = new Map<string, Node<T>>()
  readonly leaves = new Map<string, Leaf<T>>()
  readonly tails = new Map<string, Leaf<T>>()
  param: Node<T> | undefined = undefined
}

const noParams: Readonly<Record<string, string>> = Object.freeze({})

const withoutTrailingSlash = (path: string): string =>
  path.length > 1 && path.charCodeAt(path.length - 1) === 47 ? path.slice(0, -1) : path

/** Splits one path segment of a route into its kind and name. */
const segmentOf = (text: string): { readonly kind: "literal" | "param" | "tail"; readonly name: string } => {
  if (text === "*") return { kind: "tail", name: "*" }
  if (!text.startsWith("{") || !text.endsWith("}")) return { kind: "literal", name: text }
  const name = text.slice(1, -1)
  return name.endsWith("*") ? { kind: "tail", name: name.slice(0, -1) } : { kind: "param", name }
}

const insert = <T>(root: Node<T>, entry: RouteEntry<T>): boolean => {
  const names: Array<string> = []
  const segments = withoutTrailingSlash(entry.path).split("/").slice(1).map(segmentOf)
  let node = root
  let leaves = node.leaves
  for (const [index, segment] of segments.entries()) {
    if (segment.kind !== "literal") names.push(segment.name)
    if (segment.kind === "tail") {
      if (index !== segments.length - 1) throw new Error(`${entry.path}: a tail must be the last segment`)
      leaves = node.tails
      break
    }
    let next = segment.kind === "param" ? node.param : node.literals.get(segment.name)
    if (next === undefined) {
      next = new Node<T>()
      if (segment.kind === "param") node.param = next
      else node.literals.set(segment.name, next)
    }
    node = next
    leaves = node.leaves
  }
  if (leaves.has(entry.method)) throw new Error(`${entry.method} ${entry.path} is routed twice`)
  leaves.set(entry.method, { target: entry.target, isTail: leaves === node.tails, names })
  return names.length === 0
}

/** The most literal leaf for the method; `values` then holds its raw parameters. */
const lookUp = <T>(node: Node<T>, method: string, path: string, from: number, values: Array<string>): Leaf<T> | undefined => {
  if (from > path.length) return node.leaves.get(method)
  const slash = path.indexOf("/", from)
  const end = slash === -1 ? path.length : slash
  const segment = path.slice(from, end)
  const literal = node.literals.get(segment)
  if (literal !== undefined) {
    const leaf = lookUp(literal, method, path, end + 1, values)
    if (leaf !== undefined) return leaf
  }
  if (node.param !== undefined && segment !== "") {
    values.push(segment)
    const leaf = lookUp(node.param, method, path, end + 1, values)
    if (leaf !== undefined) return leaf
    values.pop()
  }
  const tail = node.tails.get(method)
  if (tail !== undefined) values.push(path.slice(from))
  return tail
}

/** Every leaf that the path reaches with any method. */
const reach = <T>(node: Node<T>, segments: ReadonlyArray<string>, at: number, leaves: Array<readonly [string, Leaf<T>]>): void => {
  if (at === segments.length) {
    leaves.push(...node.leaves)
    return
  }
  const segment = segments[at]!
  const literal = node.literals.get(segment)
  if (literal !== undefined) reach(literal, segments, at + 1, leaves)
  if (node.param !== undefined && segment !== "") reach(node.param, segments, at + 1, leaves)
  leaves.push(...node.tails)
}

const decoded = (raw: string): string | undefined => {
  if (!raw.includes("%")) return raw.includes("\0") ? undefined : raw
  try {
    const text = decodeURIComponent(raw)
    return text.includes("\0") ? undefined : text
  } catch {
    return undefined
  }
}

const isDots = (segment: string): boolean => /^(?:\.|%2e){1,2}$/i.test(segment)

/** `undefined` when it holds a NUL, or dot segments. */
const tailOf = (raw: string): string | undefined =>
  raw.includes("\0") || /%00/.test(raw) || /\.|%2e/i.test(raw) && raw.split(/[/\\]|%2f|%5c/i).some(isDots) ? undefined : raw

/** `slash`: what was taken off the path's end. */
const bind = <T>(leaf: Leaf<T>, values: ReadonlyArray<string>, slash: string): Match<T> => {
  const params: Record<string, string> = {}
  for (let i = 0; i < leaf.names.length; i++) {
    const name = leaf.names[i]!
    const value = leaf.isTail && i === leaf.names.length - 1 ? tailOf(values[i]! + slash) : decoded(values[i]!)
    if (value === undefined) return { kind: "malformed", target: leaf.target, param: name }
    params[name] = value
  }
  return { kind: "found", target: leaf.target, params }
}

/** Throws when two entries claim the same method and path: a mistake in a table, found at boot. */
export const compileRoutes = <T>(entries: Iterable<RouteEntry<T>>): Router<T> => {
  const root = new Node<T>()
  const literal = new Map<string, Map<string, T>>()
  for (const entry of entries) {
    if (!insert(root, entry)) continue
    const path = withoutTrailingSlash(entry.path)
    const methods = literal.get(path) ?? new Map<string, T>()
    literal.set(path, methods.set(entry.method, entry.target))
  }

  const find = (method: string, path: string, slash: string): Match<T> | undefined => {
    const target = literal.get(path)?.get(method)
    if (target !== undefined) return { kind: "found", target, params: noParams }
    const values: Array<string> = []
    const leaf = lookUp(root, method, path, 1, values)
    return leaf === undefined ? undefined : bind(leaf, values, slash)
  }

  const reached = (path: string): { readonly allow: ReadonlyArray<string>; readonly target: T | undefined } => {
    const leaves: Array<readonly [string, Leaf<T>]> = []
    reach(root, path.split("/").slice(1), 0, leaves)
    const allow = new Set(leaves.map(([method]) => method))
    if (allow.has("GET")) allow.add("HEAD")
    return { allow: [...allow].sort(), target: leaves[0]?.[1].target }
  }

  return {
    match: (method, rawPath) => {
      const path = withoutTrailingSlash(rawPath)
      const slash = path.length < rawPath.length ? "/" : ""
      const found = find(method, path, slash) ?? (method === "HEAD" ? find("GET", path, slash) : undefined)
      if (found !== undefined) return found
      const { allow, target } = reached(path)
      return target === undefined ? undefined : { kind: "methodNotAllowed", allow, target }
    },
    methods: (path) => reached(withoutTrailingSlash(path)).allow
  }
}
