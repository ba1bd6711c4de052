/**
 * How many paid calls each gateway has in flight, so that one that died can be
 * counted by those that live.
 *
 * A gateway writes its number down every second while it has any, which raises
 * `beats`, and takes its row away when it has none. A row of another gateway
 * whose beats stand still from one look to the next is of one that died: whoever
 * looks first takes the row, so its calls are counted once. No clocks are
 * compared.
 *
 * It is telemetry, not money: the number is up to a second old, and a server
 * that crashes with the gateway may lose the last one.
 */
import type { Sql } from "./Postgres.ts"

/** A node's id → its beats. */
export type Beats = ReadonlyMap<string, bigint>

const upsert = (sql: Sql, nodeId: string, calls: number) => sql`
  with unawaited as (select set_config('synchronous_commit', 'off', true))
  insert into calls_in_flight (node_id, calls, beats) select ${nodeId}::uuid, ${calls}::int, 1 from unawaited
  on conflict (node_id) do update set calls = excluded.calls, beats = calls_in_flight.beats + 1`

const remove = (sql: Sql, nodeId: string) => sql`delete from calls_in_flight where node_id = ${nodeId}`

/** Replaces what this node said last. */
export const writeCallsInFlight = async (sql: Sql, nodeId: string, calls: number): Promise<void> => {
  await (calls > 0 ? upsert(sql, nodeId, calls) : remove(sql, nodeId))
}

const takeUnmoved = (sql: Sql, beats: string) => sql<Array<{ calls: number }>>`
  delete from calls_in_flight c using json_to_recordset(${beats}::text::json) as seen(node_id uuid, beats bigint)
  where c.node_id = seen.node_id and c.beats = seen.beats returning c.calls`

const selectOthers = (sql: Sql, nodeId: string) => sql<Array<{ node_id: string; beats: bigint }>>`
  select node_id, beats from calls_in_flight where node_id <> ${nodeId}`

/** Takes the rows that did not move since they were `seen`; answers how many calls they had, and what to pass the next time. */
export const takeLostCalls = async (sql: Sql, nodeId: string, seen: Beats): Promise<{ readonly lost: number; readonly seen: Beats }> => {
  const unmoved = Array.from(seen, ([node_id, beats]) => ({ node_id, beats: String(beats) }))
  const taken = unmoved.length === 0 ? [] : await takeUnmoved(sql, JSON.stringify(unmoved))
  const others = await selectOthers(sql, nodeId)
  return { lost: taken.reduce((sum, { calls }) => sum + calls, 0), seen: new Map(others.map(({ node_id, beats }) => [node_id, beats])) }
}
