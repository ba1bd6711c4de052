/**
 * Pages of a list: the body is the bare list, a further page is announced by
 * `Link: <…>; rel="next"` (RFC 8288) with an absolute URL under `PUBLIC_URL`.
 *
 * A list is asked for one row more than the page has, so that a link is there
 * exactly when there is a further row.
 */
import { Effect, Schema } from "effect"
import { Config } from "../../config.ts"
import { Answer, type Wire } from "../../http/endpoint.ts"

interface PageOf {
  readonly limit: number
}

/** One page of `rows`. `next`: the query of the page that begins after the last row. */
export const page = <Row, Query extends PageOf>(
  path: string,
  schema: Wire<Query>,
  query: Query,
  rows: ReadonlyArray<Row>,
  next: (last: Row) => Query
): Effect.Effect<Answer<ReadonlyArray<Row>>, never, Config> =>
  Config.use(({ publicUrl }) => Effect.sync(() => {
    const shown = rows.slice(0, query.limit)
    const last = shown.at(-1)
    if (last === undefined || rows.length <= query.limit) return new Answer(shown)
    const parameters = new URLSearchParams(Schema.encodeUnknownSync(schema)(next(last)) as Record<string, string>)
    return new Answer(shown, [["link", `<${publicUrl}/v1${path}?${parameters}>; rel="next"`]])
  }))
