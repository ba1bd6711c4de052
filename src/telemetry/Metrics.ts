/**
 * The gateway's metrics in the Prometheus text format. Counters of the hot path
 * are plain numbers until they are scraped; gauges are read from their owner by
 * a callback, so no figure is kept twice.
 */
import { Counter, Gauge, Registry, collectDefaultMetrics } from "prom-client"
import { PlainHistogram } from "./PlainHistogram.ts"

export const registry = new Registry()
collectDefaultMetrics({ register: registry })

const counter = (name: string, help: string, labelNames: ReadonlyArray<string> = []) =>
  new Counter({ name, help, labelNames: [...labelNames], registers: [registry] })
const histogram = (name: string, help: string, bounds: ReadonlyArray<number>, label?: string): PlainHistogram => {
  const made = new PlainHistogram(name, help, bounds, label)
  registry.registerMetric(made as never)
  return made
}

const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120]

export const metrics = {
  requests: counter("tollgate_requests_total", "Answers by row and status class", ["row", "status"]),
  requestSeconds: histogram("tollgate_request_seconds", "From the request's head to the answer's end, by row", seconds, "row"),
  refusals: counter("tollgate_refusals_total", "Calls refused, by error tag", ["tag"]),
  activations: counter("tollgate_activations_total", "Actors activated"),
  discards: counter("tollgate_discards_total", "Actors dropped, by reason", ["reason"]),
  handoffs: counter("tollgate_handoffs_total", "Accounts that this node let go of, settled, when their shard left"),
  borrows: counter("tollgate_borrows_total", "Times that an account was borrowed from the node that owns it, for one change"),
  batches: counter("tollgate_batches_total", "Committer batches by outcome", ["outcome"]),
  batchCommits: histogram("tollgate_batch_commits", "Commit requests in a batch", [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
  commitSeconds: histogram("tollgate_commit_seconds", "From sending a batch to its acknowledgement", seconds),
  upstreamSeconds: histogram("tollgate_upstream_seconds", "From dispatch to the head of the agent's answer", seconds),
  upstreamFailures: counter("tollgate_upstream_failures_total", "Calls that an agent failed, by reason", ["reason"]),
  usageDropped: counter("tollgate_usage_dropped_total", "Usage rows of free calls lost to a full buffer"),
  callsLostToCrash: counter("tollgate_calls_lost_to_crash_total", "Paid calls and orders that stay unpaid: charges that came too late for their activation or were refused, orders that a gateway left pending when it died, and the calls it had in flight, as many as it wrote down in its last second"),
  callsPassedOn: counter("tollgate_calls_passed_on_total", "Calls passed on to the node that owns their account, by how that ended: answered, put_off (tried again), failed, unknown, refused, cut, gone", ["outcome"]),
  orders: counter("tollgate_orders_total", "Orders by final status", ["status"]),
  chatTurns: counter("tollgate_chat_turns_total", "Chat turns by how they ended: charged (or free), failed, cancelled", ["outcome"]),
  chatLateCancels: counter("tollgate_chat_late_cancels_total", "Chat turns cancelled after their agent had begun to answer"),
  leasesGranted: counter("tollgate_leases_granted_total", "Leases that were made or grew, at the owners of their accounts"),
  leasesClosed: counter("tollgate_leases_closed_total", "Leases whose rest returned to their account"),
  leaseRecalls: counter("tollgate_lease_recalls_total", "Times that other nodes were asked to give back what they don't use"),
  leaseAsks: counter("tollgate_lease_asks_total", "Times that this node asked an account's owner for calls or credits"),
  lettersSent: counter("tollgate_letters_sent_total", "Letters that the mail server has taken"),
  lettersFailed: counter("tollgate_letters_failed_total", "Letters given up: refused for good, or not taken in their time"),
  webhookDeliveries: counter("tollgate_webhook_deliveries_total", "Deliveries to webhooks by how they ended: delivered, failed", ["outcome"]),
  databaseRestarts: counter("tollgate_database_restarts_total", "Restarts of the embedded Postgres by its supervisor")
}

/** Registers a gauge whose value is read at scrape time. A second registration under a name replaces the first. */
export const gauge = (name: string, help: string, read: () => number | Promise<number>): void => {
  registry.removeSingleMetric(name)
  new Gauge({ name, help, registers: [registry], async collect() { this.set(await read()) } })
}
