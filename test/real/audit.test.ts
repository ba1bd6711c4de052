/** The live audit: a small set of books that is right passes, and every way to make them wrong is found by its check. */
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { audit } from "../../src/store/Audit.ts"
import { startEmbedded } from "../../src/store/Embedded.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { type Sql, connect } from "../../src/store/Postgres.ts"
import { type TestDatabase, freshDatabase } from "../support/postgres.ts"

/** Ids that say what they name: `id("charge")` is a uuid of its letters. */
const id = (name: string): string => {
  const hex = Buffer.from(name.padEnd(16, ".").slice(0, 16)).toString("hex")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
const [buyer, owner, shell, key, agent, service, batch, settlement] =
  ["buyer", "owner", "shell", "key", "agent", "service", "batch", "settlement"].map(id) as [string, string, string, string, string, string, string, string]

interface Sides { available?: number; reserved?: number; earned?: number; fee?: number; buyback?: number; deposits?: number; withdrawals?: number }

const transaction = (name: string, account: string, type: string, sides: Sides, more: { order?: string; age?: string; agent?: string; reference?: string } = {}): string => {
  const called = ["charge", "reserve", "complete", "refund"].includes(type)
  const earner = type === "earning" ? owner : sides.earned === undefined ? undefined : owner
  const values = [
    id(name), more.age === undefined ? batch : id("folded"), account, type, sides.available ?? 0, sides.reserved ?? 0, earner, sides.earned ?? 0, sides.fee ?? 0,
    sides.buyback ?? 0, sides.deposits ?? 0, sides.withdrawals ?? 0, 0, called ? more.agent ?? agent : undefined, more.order === undefined ? undefined : id(more.order), called ? key : undefined, more.reference
  ].map((value) => value === undefined ? "null" : `'${value}'`).join(", ")
  return `insert into transactions (id, batch_id, account_id, type, available, reserved, earner_id, earned, fee, buyback, deposits, withdrawals, balance_after, agent_id, order_id, subject_id, reference, created_at)
          values (${values}, now() - interval '${more.age ?? "0"}');`
}
const order = (name: string, status: string, amount: number, fee: number): string =>
  `insert into orders (id, account_id, subject_id, agent_id, token, status, prompt, payment_method, amount, fee, created_at)
   values ('${id(name)}', '${buyer}', '${key}', '${agent}', 1, '${status}', 'p', 'credits', ${amount}, ${fee}, now());`
const session = (name: string, messages: number, consumed: number): string =>
  `insert into sessions (id, account_id, subject_id, agent_id, node_id, price, message_count, consumed, started_at)
   values ('${name}', '${buyer}', '${key}', '${agent}', '${id("node")}', 40, ${messages}, ${consumed}, now());`
const turn = (name: string, number: number, amount: number, fee: number): string =>
  `${order(name, "completed", amount, fee)} update orders set session_id = 'ses_talk', message_index = ${number} where id = '${id(name)}';`
const call = (name: string, kind: string, status: number, cost: number, more: { agent?: string; recorded?: boolean } = {}): string =>
  `insert into usage (id, account_id, subject_id, agent_id, call, status, cost, recorded, latency_ms, created_at)
   values ('${id(name)}', '${buyer}', '${key}', '${more.agent ?? agent}', '${kind}', ${status}, ${cost}, ${more.recorded ?? false}, 12, now());`
const due = (name: string, of: string, amount: number, fee: number, recorded: boolean, settled?: string): string =>
  `insert into dues (usage_id, agent_id, amount, fee, recorded, called_at, settlement_id) values ('${id(name)}', '${of}', ${amount}, ${fee}, ${recorded}, now(), ${settled === undefined ? "null" : `'${settled}'`});`

/** Weeks and months that agree with the days, so that only these are wrong. */
const periods = `
  delete from usage_weekly_by_account; delete from usage_months_by_account;
  insert into usage_weekly_by_account select date_trunc('week', day::timestamp)::date, account_id, sum(calls), sum(cost) from usage_daily_by_account group by 1, 2;
  insert into usage_months_by_account select distinct date_trunc('month', day::timestamp)::date, account_id from usage_daily_by_account;`

/** Usage is retained since yesterday. */
const partition = `
  do $$ begin execute format('create table usage_days partition of usage for values from (%L) to (%L)', current_date - 1, current_date + 3); end $$;`

/** A charge of five days ago whose usage is gone by now; everything else is of the last hour. One call was charged to a lease, which has 30 left. The owner's service had a call of each kind, and was paid for two. */
const books = `
  insert into accounts (id, available, reserved) values ('${buyer}', 9550, 50), ('${owner}', 32, 0);
  insert into accounts (id, merged_into) values ('${shell}', '${buyer}');
  insert into earnings values ('${buyer}', 0), ('${owner}', 169), ('${shell}', 0);
  insert into api_keys (id, account_id, dialect, name, key_hash, key_prefix, scopes)
    values ('${key}', '${buyer}', 'autx', 'k', sha256('k'), 'autx_live_k', '{proxy,orders}');
  insert into budgets values ('${key}', 'total', 1000, 'epoch', 320), ('${key}', 'day', 500, date_trunc('day', now()), 410);
  insert into agents (id, owner_id, dialect, ticker, name, description, category, endpoint_url, price, auth_tier, updated_at)
    values ('${agent}', '${owner}', 'autx', 'AGENT', 'a', '', 'c', 'https://agent.example', 100, 'jwt_default', now()),
           ('${service}', '${owner}', 'acf', 'SERVICE', 's', '', 'c', 'https://service.example', 20, 'jwt_default', now());
  insert into batches (id, fee, buyback, deposits, withdrawals, refused) values ('${batch}', 57, 61, 0, 48, '{}');
  update books set amount = case book when 'deposits' then -10000 when 'fee' then 2 when 'buyback' then 1 else 0 end;
  ${transaction("deposit", buyer, "deposit", { available: 10_000, deposits: -10_000 }, { age: "6 days" })}
  ${transaction("old charge", buyer, "charge", { available: -10, earned: 7, fee: 2, buyback: 1 }, { age: "5 days" })}
  ${transaction("charge", buyer, "charge", { available: -100, earned: 72, fee: 10, buyback: 18 })}
  ${transaction("done reserve", buyer, "reserve", { available: -200, reserved: 200 }, { order: "done" })}
  ${transaction("done complete", buyer, "complete", { reserved: -200, earned: 144, fee: 20, buyback: 36 }, { order: "done" })}
  ${transaction("failed reserve", buyer, "reserve", { available: -300, reserved: 300 }, { order: "failed" })}
  ${transaction("failed refund", buyer, "refund", { available: 300, reserved: -300 }, { order: "failed" })}
  ${transaction("open reserve", buyer, "reserve", { available: -50, reserved: 50 }, { order: "open" })}
  ${transaction("turn charge", buyer, "charge", { available: -40, earned: 28, fee: 5, buyback: 7 }, { order: "turn" })}
  ${transaction("gift reserve", buyer, "reserve", {}, { order: "gift" })}
  ${transaction("gift complete", buyer, "complete", {}, { order: "gift" })}
  ${transaction("sweep", owner, "earning", { available: 100, earned: -100 })}
  ${transaction("withdrawal", owner, "withdrawal", { available: -30, withdrawals: 30 })}
  ${transaction("fee", owner, "fee", { available: -20, fee: 20 })}
  ${transaction("service charge", buyer, "charge", { available: -20, earned: 18, fee: 2 }, { agent: service })}
  ${transaction("payout", owner, "withdrawal", { available: -18, withdrawals: 18 }, { reference: `settlement ${settlement}` })}
  insert into leases (id, account_id, subject_id, node_id, amount, spent, granted_at) values ('${id("lease")}', '${buyer}', '${key}', '${id("node")}', 130, 100, now());
  update transactions set lease_id = '${id("lease")}' where id = '${id("charge")}';
  ${order("done", "completed", 200, 20)} ${order("failed", "failed", 300, 0)} ${order("open", "pending", 50, 0)} ${order("gift", "completed", 0, 0)}
  ${session("ses_talk", 2, 40)} ${turn("turn", 1, 40, 5)} ${turn("free turn", 2, 0, 0)} ${session("ses_silence", 0, 0)}
  ${call("charge", "proxy", 200, 100)} ${call("done complete", "order", 200, 200)} ${call("failed refund", "order", 503, 0)} ${call("gift complete", "order", 200, 0)} ${call("free call", "proxy", 200, 0)}
  ${call("turn charge", "chat", 200, 40)} ${call("free turn call", "chat", 200, 0)}
  ${call("service charge", "proxy", 200, 20, { agent: service })} ${call("recorded", "proxy", 404, 30, { agent: service, recorded: true })} ${call("service failed", "proxy", 502, 0, { agent: service })}
  ${call("service free", "proxy", 200, 0, { agent: service })}
  insert into settlements (id, provider, account_id, period_start, period_end, total, fee, credited, calls, status, created_at, paid_at)
    values ('${settlement}', 'owner', '${owner}', now() - interval '1 hour', now() + interval '1 hour', 50, 5, 18, 2, 'completed', now(), now());
  ${due("service charge", service, 20, 2, false, settlement)} ${due("recorded", service, 30, 3, true, settlement)} ${due("service free", service, 0, 0, false)}
  insert into usage_hourly_by_agent select date_trunc('hour', created_at), agent_id, count(*), count(*) filter (where status >= 500), sum(cost), sum(latency_ms) from usage group by 1, 2;
  insert into usage_daily_by_agent select created_at::date, agent_id, count(*), count(*) filter (where status < 400), count(*) filter (where status >= 500), sum(cost), sum(latency_ms) from usage group by 1, 2;
  insert into usage_daily_by_account select created_at::date, account_id, count(*), count(*) filter (where status < 400), count(*) filter (where status >= 500), sum(cost), 30, sum(latency_ms) from usage group by 1, 2;
  insert into usage_by_pair select account_id, agent_id, count(*), sum(cost), max(created_at)::date from usage group by 1, 2;
  insert into usage_hourly_by_agent values (date_trunc('hour', now() - interval '5 days'), '${agent}', 1, 0, 10, 12);
  insert into usage_daily_by_agent values (current_date - 5, '${agent}', 1, 1, 0, 10, 12);
  insert into usage_daily_by_account values (current_date - 5, '${buyer}', 1, 1, 0, 10, 0, 12);
  ${periods}
  update usage_by_pair set calls = calls + 1, cost = cost + 10 where agent_id = '${agent}';
  insert into agent_totals select agent_id, sum(calls), sum(cost), sum(succeeded), sum(errors), sum(latency_ms), now(), now() from usage_daily_by_agent group by 1;
  insert into idempotency_keys values
    ('${buyer}', 'a', 'f', '${id("done")}', now()), ('${buyer}', 'b', 'f', '${id("charge")}', now()),
    ('${buyer}', 'c', 'f', '${key}', now()), ('${owner}', 'd', 'f', '${agent}', now());`

const everyTable = "accounts, leases, earnings, api_keys, budgets, agents, batches, transactions, orders, sessions, usage, usage_hourly_by_agent, usage_daily_by_agent, usage_daily_by_account, usage_weekly_by_account, usage_months_by_account, usage_by_pair, agent_totals, idempotency_keys, dues, settlements"

/** What the schema itself would refuse, were it not taken away: the audit must not rely on it. */
const constraints = `
  alter table accounts drop constraint if exists accounts_available_not_negative, drop constraint if exists accounts_reserved_not_negative;
  alter table leases drop constraint if exists leases_never_overspent;
  alter table earnings drop constraint if exists earnings_posted_not_negative;
  alter table budgets drop constraint if exists budgets_never_overspent;
  alter table transactions drop constraint if exists transactions_balanced, drop constraint if exists transactions_pkey;
  alter table orders drop constraint if exists orders_turn_ended;
  drop index if exists transactions_order_once; drop index if exists orders_turn;`

const names = {
  zero: "every transaction sums to zero",
  all: "all entries together sum to zero",
  balances: "available, with what is left of its leases, and reserved of every account are the sums of its entries",
  lease: "every lease has spent what its transactions say, all charges of its account and subject, and no more than it has",
  earnings: "posted earnings of every account are the sum of its entries",
  negative: "no account is below zero",
  books: "books and batches together are the sums of the system's entries",
  batch: "every transaction's batch exists or was folded",
  completed: "every completed order was reserved once, completed once and not refunded",
  failed: "every failed order was reserved once and refunded once",
  pending: "every pending order was reserved once and nothing else",
  orphan: "every reserve, completion and refund belongs to an order",
  reserved: "what an account has reserved is the sum of its pending orders",
  turn: "every chat turn was charged its amount, once, or nothing when it is free",
  turnOf: "every charge that names an order belongs to a completed chat turn of its account, agent and payer",
  sessionOf: "every chat turn belongs to a session of its account and agent",
  session: "every session counts and sums its turns, which are numbered without a hole",
  paid: "every paid call was charged, once and its cost",
  recorded: "no recorded call was charged, and none costs less than nothing",
  charged: "every charge and completion belongs to exactly one paid call",
  byAgent: "usage_hourly_by_agent is what the retained usage sums to",
  byAgentsDay: "usage_daily_by_agent is what the retained usage sums to",
  byAccount: "usage_daily_by_account is what the retained usage sums to",
  byWeek: "usage_weekly_by_account is what the days of its weeks sum to",
  byMonth: "usage_months_by_account has the months of all days, and no others",
  byPair: "usage_by_pair has every retained call, and the last one's day",
  pairTotals: "usage_by_pair has no more calls of an agent than its totals",
  totals: "agent totals are the sums of their hours",
  totalDays: "agent totals are the sums of their days",
  owed: "a retained call is owed to its provider exactly when it was answered below 500 by an acf service",
  dueFee: "a due that was charged has the fee of its transaction",
  settlement: "every settlement is the sum of its dues, which lie in its period and are its provider's",
  payout: "every settlement that was paid took from the provider's credits what was there of it, once",
  merged: "an account that was merged into another has no keys, agents, subscriptions or name left",
  budget: "no budget is overspent or below zero",
  total: "total budgets of usable keys have spent, with their keys' leases, what their transactions say, and no more than they are",
  idempotency: "every idempotency key names something of its account that exists"
}

const where = (name: string): string => `where id = '${id(name)}'`
const withReserved = (amount: number): string => `update accounts set reserved = ${amount} where id = '${buyer}';`

/** What is done to the books, and exactly which checks see it. */
const corruptions: ReadonlyArray<readonly [what: string, statement: string, seenBy: ReadonlyArray<string>]> = [
  ["a transaction that invents a unit", `update transactions set buyback = buyback + 1 ${where("charge")}`, [names.zero, names.all, names.books]],
  ["two transactions that cancel each other's error", `update transactions set fee = fee + 1 ${where("charge")}; update transactions set fee = fee - 1 ${where("fee")}`, [names.zero]],
  ["an account that was credited without an entry", `update accounts set available = available + 1 where id = '${buyer}'`, [names.balances]],
  ["a lost entry of a deposit", `delete from transactions ${where("deposit")}`, [names.balances, names.books]],
  ["reserved money without an entry", withReserved(51), [names.balances, names.reserved]],
  ["a lease that was granted from nothing", `update leases set amount = amount + 1`, [names.balances]],
  ["a lease that vanished", `delete from leases`, [names.balances, names.total]],
  ["a lease that forgot what was spent of it", `update leases set spent = spent - 1`, [names.balances, names.lease, names.total]],
  ["a lease that was spent beyond its amount", `update leases set amount = 99; update accounts set available = available + 31 where id = '${buyer}'`, [names.lease]],
  ["a lease that another key's call was charged to", `update leases set subject_id = '${owner}'`, [names.lease, names.total]],
  ["a lease that another account's call was charged to", `update leases set account_id = '${owner}'`, [names.balances, names.lease]],
  ["a lease that something else than a call was charged to", `update transactions set lease_id = '${id("lease")}' ${where("gift reserve")}`, [names.lease]],
  ["an entry of an account that isn't there", `update transactions set account_id = '${id("nobody")}' ${where("withdrawal")}`, [names.balances]],
  ["earnings that were never posted", `update earnings set posted = 0 where account_id = '${owner}'`, [names.earnings]],
  ["an earner without a row of earnings", `delete from earnings where account_id = '${owner}'`, [names.earnings]],
  ["an account below zero", `update accounts set available = -1 where id = '${owner}'`, [names.balances, names.negative]],
  ["earnings below zero", `update earnings set posted = -1 where account_id = '${buyer}'`, [names.earnings, names.negative]],
  ["a batch with a wrong sum", `update batches set fee = fee + 1`, [names.books]],
  ["a book with a wrong sum", `update books set amount = amount - 1 where book = 'withdrawals'`, [names.books]],
  ["a book that is missing", `delete from books where book = 'deposits'`, [names.books]],
  ["a young batch that is missing", `delete from batches; update books set amount = amount + case book when 'fee' then 57 when 'buyback' then 61 when 'withdrawals' then 48 else 0 end`, [names.batch]],
  ["a completed order that was never reserved", `update transactions set order_id = null, type = 'adjustment' ${where("done reserve")}`, [names.completed, names.total]],
  ["an order that was completed twice", transaction("again", buyer, "complete", { reserved: 0 }, { order: "done" }), [names.completed]],
  ["a completed order that was refunded as well", transaction("again", buyer, "refund", {}, { order: "done" }), [names.completed]],
  ["an order that cost another amount than it was reserved for", `update orders set amount = 199 ${where("done")}`, [names.completed]],
  ["a completed order with another fee than its transaction", `update orders set fee = 19 ${where("done")}`, [names.completed]],
  ["an order paid by another account", `update orders set account_id = '${owner}' ${where("done")}; update idempotency_keys set account_id = '${owner}' where key = 'a'`, [names.completed]],
  ["a failed order that was not refunded", `update transactions set order_id = null, type = 'adjustment' ${where("failed refund")}`, [names.failed, names.total]],
  ["a failed order that was refunded twice", transaction("again", buyer, "refund", {}, { order: "failed" }), [names.failed]],
  ["a failed order that was completed", `update orders set status = 'failed' ${where("done")}`, [names.failed]],
  ["an order that ended but is still pending", `update orders set status = 'pending' ${where("gift")}`, [names.pending]],
  ["a pending order without its reserve", `update transactions set order_id = null, type = 'adjustment' ${where("open reserve")}`, [names.pending, names.total]],
  ["a reserve of no order", `update transactions set order_id = '${id("nobody")}' ${where("open reserve")}`, [names.pending, names.orphan]],
  ["an order that vanished", `delete from orders ${where("open")}`, [names.orphan, names.reserved]],
  ["reserved money of an order that ended", `update orders set status = 'failed' ${where("open")}`, [names.failed, names.reserved]],
  ["a turn that was never charged", `update transactions set order_id = null ${where("turn charge")}`, [names.turn, names.paid]],
  ["a turn that was charged twice", transaction("again", buyer, "charge", {}, { order: "turn" }), [names.turn]],
  ["a free turn that was charged", transaction("again", buyer, "charge", {}, { order: "free turn" }), [names.turn]],
  ["a turn that cost another amount than it was charged", `update orders set amount = 39 ${where("turn")}; update sessions set consumed = 39 where id = 'ses_talk'`, [names.turn]],
  ["a turn with another fee than its charge", `update orders set fee = 4 ${where("turn")}`, [names.turn]],
  ["a turn that was reserved as an order", transaction("again", buyer, "reserve", {}, { order: "turn" }), [names.turn]],
  ["a charge for a turn that is not there", `delete from orders ${where("turn")}`, [names.orphan, names.turnOf, names.session]],
  ["a charge for an order that is no turn", `update orders set session_id = null, message_index = null ${where("turn")}`, [names.completed, names.turnOf, names.session]],
  ["a charge for a turn that did not end", `update orders set status = 'pending' ${where("turn")}`, [names.pending, names.reserved, names.turnOf]],
  ["a charge for a turn of another key", `update orders set subject_id = '${owner}' ${where("turn")}`, [names.turnOf]],
  ["a charge for a turn with another agent", `update orders set agent_id = '${owner}' ${where("turn")}; update sessions set agent_id = '${owner}'`, [names.turnOf, names.sessionOf]],
  ["a turn of a session that vanished", `delete from sessions where id = 'ses_talk'`, [names.sessionOf]],
  ["a turn in another account's session", `update sessions set account_id = '${owner}' where id = 'ses_talk'`, [names.sessionOf]],
  ["a session that counts a message too much", `update sessions set message_count = 3 where id = 'ses_talk'`, [names.session]],
  ["a session without turns that counts one", `update sessions set message_count = 1 where id = 'ses_silence'`, [names.session]],
  ["a session that says it cost more than its turns", `update sessions set consumed = 41 where id = 'ses_talk'`, [names.session]],
  ["a hole in a session's numbers", `update orders set message_index = 3 ${where("free turn")}`, [names.session]],
  ["two turns of a session with one number", `update orders set message_index = 1 ${where("free turn")}`, [names.session]],
  ["a session whose numbers begin with 0", `update orders set message_index = message_index - 1 where session_id = 'ses_talk'`, [names.session]],
  ["a chat call that was charged without its turn", `update usage set call = 'chat' ${where("charge")}`, [names.paid]],
  ["a turn that was charged as another call", `update usage set call = 'proxy' ${where("turn charge")}`, [names.paid]],
  ["a paid call that was never charged", `update usage set cost = 5 ${where("free call")}; ${rolledUp(5)}`, [names.paid]],
  ["a call that was charged another amount than it cost", `update usage set cost = 101 ${where("charge")}; ${rolledUp(1)}`, [names.paid]],
  ["a call charged to another account", `update usage set account_id = '${owner}' ${where("charge")}`, [names.paid, names.byAccount, names.byPair]],
  ["a call that costs less than nothing", `update usage set cost = -5 ${where("free call")}; ${rolledUp(-5)}`, [names.paid]],
  ["a call of an order's price beside its completion", `update usage set id = '${id("other")}' ${where("done complete")}`, [names.paid, names.charged]],
  ["a charge for no call", `delete from usage ${where("charge")}; ${rolledUp(-100, -1)}`, [names.charged]],
  ["a charge with two calls", `insert into usage select * from usage ${where("charge")}; ${rolledUp(100, 1)}`, [names.paid, names.charged]],
  ["a hold that was captured twice", `insert into transactions select * from transactions ${where("charge")}`, [names.balances, names.lease, names.earnings, names.books, names.paid, names.total]],
  ["a recorded call that was charged", transaction("recorded", buyer, "charge", {}, { agent: service }), [names.recorded]],
  ["a roll-up by agent and hour that missed a call", `update usage_hourly_by_agent set calls = calls - 1 where hour > now() - interval '1 day' and agent_id = '${agent}'; update agent_totals set calls = calls - 1 where agent_id = '${agent}'`, [names.byAgent, names.totalDays, names.pairTotals]],
  ["a roll-up by agent and hour with a wrong latency", `update usage_hourly_by_agent set latency_ms = 1 where hour > now() - interval '1 day'`, [names.byAgent]],
  ["a roll-up by agent and day with a wrong latency", `update usage_daily_by_agent set latency_ms = latency_ms + 1 where day >= current_date - 1; update agent_totals set latency_ms = latency_ms + 1`, [names.byAgentsDay]],
  ["a roll-up by agent and day that counts a failure as a success", `update usage_daily_by_agent set succeeded = succeeded + 1 where day >= current_date - 1; update agent_totals set succeeded = succeeded + 1`, [names.byAgentsDay]],
  ["a roll-up by account that is missing", `delete from usage_daily_by_account where day >= current_date - 1; ${periods}`, [names.byAccount]],
  ["a roll-up by account of calls that never were", `insert into usage_daily_by_account values (current_date + 1, '${buyer}', 1, 1, 0, 0, 0, 0); ${periods}`, [names.byAccount]],
  ["a roll-up by account and week that is missing", `delete from usage_weekly_by_account`, [names.byWeek]],
  ["a roll-up by account and week of calls that never were", `update usage_weekly_by_account set calls = calls + 1`, [names.byWeek]],
  ["a roll-up by account and week that forgot what its calls cost", `update usage_weekly_by_account set cost = 0`, [names.byWeek]],
  ["a month with calls that is missing", `delete from usage_months_by_account`, [names.byMonth]],
  ["a month without calls", `insert into usage_months_by_account values ('2001-01-01', '${buyer}')`, [names.byMonth]],
  ["a roll-up by account that says that a recorded call moved credits", `update usage_daily_by_account set recorded = 0 where day >= current_date - 1`, [names.byAccount]],
  ["a roll-up by account and agent that is missing", `delete from usage_by_pair where agent_id = '${service}'`, [names.byPair]],
  ["a roll-up by account and agent that forgot a charge", `update usage_by_pair set cost = 49 where agent_id = '${service}'`, [names.byPair]],
  ["a roll-up by account and agent that has another last day", `update usage_by_pair set last_day = last_day - 1`, [names.byPair]],
  ["a roll-up by account and agent of calls that the agent never had", `update usage_by_pair set calls = calls + 1`, [names.pairTotals]],
  ["an agent's total that counts a call too much", `update agent_totals set calls = calls + 1`, [names.totals, names.totalDays]],
  ["an agent without a total", `delete from agent_totals`, [names.totals, names.totalDays, names.pairTotals]],
  ["an agent's total with a wrong latency", `update agent_totals set latency_ms = 0`, [names.totalDays]],
  ["a call of a service that is owed to nobody", `delete from dues where usage_id = '${id("service free")}'`, [names.owed]],
  ["a call that failed, and is owed", due("service failed", service, 0, 0, false), [names.owed]],
  ["a call of another product's agent that is owed", due("free call", agent, 0, 0, false), [names.owed]],
  ["a call that is owed at another amount than it cost", `update dues set amount = 1 where usage_id = '${id("service free")}'`, [names.owed, names.dueFee]],
  ["a recorded call that is owed as a charged one", `update dues set recorded = false where usage_id = '${id("recorded")}'`, [names.owed, names.dueFee, names.settlement]],
  ["a commission other than the one that was kept", `update dues set fee = 1 where usage_id = '${id("service charge")}'`, [names.dueFee, names.settlement]],
  ["a settlement of more than its calls cost", `update settlements set total = total + 1`, [names.settlement]],
  ["a settlement that counts a call too much", `update settlements set calls = calls + 1`, [names.settlement]],
  ["a settlement of a call after its period", `update settlements set period_end = now() - interval '1 minute'`, [names.settlement]],
  ["a settlement of another provider's calls", `update settlements set account_id = '${buyer}'`, [names.settlement]],
  ["a settlement of calls that another one has", `update dues set settlement_id = null where settlement_id is not null`, [names.settlement]],
  ["a settlement that was paid and took nothing", `update transactions set reference = null ${where("payout")}`, [names.payout]],
  ["a settlement that was paid twice", transaction("again", owner, "withdrawal", {}, { reference: `settlement ${settlement}` }), [names.payout]],
  ["a settlement that took credits and is not paid", `update settlements set status = 'pending', paid_at = null`, [names.payout]],
  ["a merged account that still has a key", `update api_keys set account_id = '${shell}'`, [names.merged, names.idempotency]],
  ["a merged account that still has a name", `insert into owners values ('acf', 'shell', '${shell}', now())`, [names.merged]],
  ["a budget that is overspent", `update budgets set spent = 501 where budget_window = 'day'`, [names.budget]],
  ["a budget below zero", `update budgets set spent = -1 where budget_window = 'day'`, [names.budget]],
  ["a total budget that its key's lease goes beyond", `update budgets set amount = 419 where budget_window = 'total'`, [names.total]],
  ["a total budget that was refilled", `update budgets set spent = 0 where budget_window = 'total'`, [names.total]],
  ["an idempotency key of nothing", `update idempotency_keys set result_id = '${id("nothing")}' where key = 'a'`, [names.idempotency]],
  ["an idempotency key of something that is no id", `update idempotency_keys set result_id = 'done' where key = 'b'`, [names.idempotency]],
  ["an idempotency key of another account's thing", `update idempotency_keys set account_id = '${owner}' where key = 'c'`, [names.idempotency]]
]

/** Roll-ups and totals that agree with a changed cost, so that only the charge is wrong. */
function rolledUp(cost: number, calls = 0): string {
  const [counted, timed] = [`cost = cost + ${cost}, calls = calls + ${calls}`, `latency_ms = latency_ms + ${calls * 12}, succeeded = succeeded + ${calls}`]
  return `update usage_hourly_by_agent set ${counted}, latency_ms = latency_ms + ${calls * 12} where hour > now() - interval '1 day' and agent_id = '${agent}';
          update usage_daily_by_agent set ${counted}, ${timed} where day >= current_date - 1 and agent_id = '${agent}';
          update usage_daily_by_account set ${counted}, ${timed} where day >= current_date - 1;
          ${periods}
          update usage_by_pair set ${counted} where agent_id = '${agent}';
          update agent_totals set ${counted}, ${timed} where agent_id = '${agent}';`
}

const failing = async (sql: Sql): Promise<ReadonlyArray<string>> => (await audit(sql)).filter(({ ok }) => !ok).map(({ name }) => name)

describe("the live audit", () => {
  let database: TestDatabase
  let sql: Sql

  beforeAll(async () => {
    database = await freshDatabase()
    sql = connect(database.options, { max: 3, statementTimeoutMs: 0, name: "audit-test" })
    await migrate(sql)
    await sql.unsafe(partition)
  })
  beforeEach(() => sql.unsafe(`truncate ${everyTable} cascade; delete from books; insert into books (book) values ('fee'), ('buyback'), ('deposits'), ('withdrawals'); ${books}`))
  afterAll(async () => {
    await sql.end()
    await database.drop()
  })

  it("finds nothing in books that are right, under every constraint of the schema", async () => {
    const results = await audit(sql)
    expect(results.filter(({ ok }) => !ok)).toEqual([])
    expect(results.map(({ name }) => name).sort()).toEqual(Object.values(names).sort())
    expect(new Set(results.map(({ found }) => found))).toEqual(new Set(["nothing"]))
  })

  it("finds nothing in an empty database", async () => {
    await sql.unsafe(`truncate ${everyTable} cascade; update books set amount = 0`)
    expect(await failing(sql)).toEqual([])
  })

  it("has a corruption for each of its checks", () => {
    expect(new Set(corruptions.flatMap(([, , seenBy]) => seenBy))).toEqual(new Set(Object.values(names)))
  })

  it.each(corruptions)("finds %s", async (_what, statement, seenBy) => {
    await sql.unsafe(`${constraints} ${statement}`)
    expect([...await failing(sql)].sort()).toEqual([...seenBy].sort())
  })

  it("names how many rows are wrong, and one of them", async () => {
    await sql`update accounts set available = available + 7 where merged_into is null`
    const found = (await audit(sql)).find(({ name }) => name === names.balances)!.found
    expect(found).toMatch(/^2, e\.g\. [0-9a-f-]{36}: available \d+, in leases \d*, entries \d+; reserved \d+, entries \d+$/)
  })

  it("sees one moment: nothing is found while money moves", async () => {
    let moving = true
    const mover = (async () => {
      for (let count = 0; moving; count++) {
        await sql.begin(async (move) => {
          await move.unsafe(`update accounts set available = available - 1 where id = '${buyer}'`)
          await move.unsafe(transaction(`moved ${count}`, buyer, "fee", { available: -1, fee: 1 }))
          await move.unsafe(`update batches set fee = fee + 1`)
        })
      }
      return moving
    })()
    for (let run = 0; run < 5; run++) expect(await failing(sql)).toEqual([])
    moving = false
    await mover
    expect(await sql`select from transactions where type = 'fee'`).not.toHaveLength(1)
  })

  it("changes nothing", async () => {
    const before = await sql`select * from entries order by transaction_id, book`
    await audit(sql)
    expect(await sql`select * from entries order by transaction_id, book`).toEqual(before)
  })
})

interface Ended { readonly code: number; readonly stdout: string; readonly stderr: string }

const runAudit = (env: Readonly<Record<string, string>>): Promise<Ended> => new Promise((done) => {
  const { DATABASE_URL: _, DATA_DIR: __, ...inherited } = process.env
  execFile(process.execPath, ["scripts/run.mjs", "audit"], { env: { ...inherited, ...env } }, (error, stdout, stderr) =>
    done({ code: error === null ? 0 : Number(error.code), stdout, stderr }))
})

describe("npm run audit", () => {
  let folder: string
  beforeAll(() => { folder = mkdtempSync(join(tmpdir(), "tollgate-audit-")) })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("proves the books of DATABASE_URL, a line a check, and ends with 1 once something is wrong", async () => {
    const database = await freshDatabase()
    const sql = connect(database.options, { max: 1, statementTimeoutMs: 0, name: "audit-test" })
    try {
      await migrate(sql)
      await sql.unsafe(`${partition} ${books}`)
      const right = await runAudit(database.env)
      const checks = Object.keys(names).length
      expect(right).toMatchObject({ code: 0, stderr: "" })
      expect(right.stdout.trimEnd().split("\n")).toEqual([...Object.values(names).map((name) => `ok   ${name}`), `audit: ${checks} checks, 0 findings`])

      await sql`update batches set fee = fee + 1`
      const wrong = await runAudit(database.env)
      expect(wrong.code).toBe(1)
      expect(wrong.stdout).toContain(`FAIL ${names.books}: 1, e.g. fee: books and batches 60, entries 59\n`)
      expect(wrong.stdout).toMatch(new RegExp(`audit: ${checks} checks, 1 findings\n$`))
    } finally {
      await sql.end()
      await database.drop()
    }
  })

  it("finds the embedded server of the gateway that runs on DATA_DIR", async () => {
    const server = await startEmbedded({ dataDir: join(folder, "postgres"), durable: false })
    try {
      const sql = connect(server.options, { max: 1, statementTimeoutMs: 0, name: "audit-test" })
      await migrate(sql)
      await sql.end()
      expect(await runAudit({ DATA_DIR: folder })).toMatchObject({ code: 0, stdout: expect.stringMatching(/audit: \d+ checks, 0 findings\n$/) as string })
    } finally {
      await server.stop()
    }
    expect(await runAudit({ DATA_DIR: folder })).toMatchObject({ code: 1, stdout: "", stderr: `audit: no gateway runs on ${folder}: start it, or set DATABASE_URL or DATA_DIR\n` })
  })

  it("says in one line that the database can't be reached", async () => {
    const { code, stderr } = await runAudit({ DATABASE_URL: "postgres://127.0.0.1:1/none" })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^audit: the database can't be read: [^\n]+\n$/)
  })
})
