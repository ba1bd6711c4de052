/**
 * `npm run explain`: every kind of transaction that a gateway or an operator
 * makes is explained and decided again to the same outcome, and whatever is
 * changed in its rows afterwards is named. The command is `dist/explain.js`, which
 * `npm test` builds first.
 */
import { execFile } from "node:child_process"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { replay } from "../../scripts/explain/replay.ts"
import { textOf } from "../../scripts/explain/text.ts"
import type { TransactionId } from "../../src/domain/ids.ts"
import { newId } from "../../src/kernel/Ids.ts"
import { readEvidence } from "../../src/store/Explain.ts"
import { creditAccount } from "../../src/store/OperatorStore.ts"
import { ChatSocket } from "../support/ChatSocket.ts"
import { type Person, type Reply, type ScriptedAgent, type World, makeWorld } from "../support/World.ts"

let world: World
let buyer: Person
let agent: ScriptedAgent
let key: { readonly id: string; readonly key: string }
/** By what they are: the ids of transactions, of two orders, and of a chat turn's order and its session. */
const ids: Record<string, string> = {}

const explain = async (id: string) => (await readEvidence(world.sql, id)).map((evidence) => ({ evidence, ...replay(evidence) }))
const one = async (id: string) => {
  const [explained, ...more] = await explain(id)
  expect(more).toEqual([])
  return explained!
}
const text = async (id: string): Promise<string> => {
  const { evidence, ...replayed } = await one(id)
  return textOf(evidence, replayed)
}
const idOf = async (accountId: string, type: string, orderId?: string): Promise<string> => {
  const found = await world.sql<Array<{ id: string }>>`
    select id from transactions where account_id = ${accountId} and type = ${type} ${orderId === undefined ? world.sql`` : world.sql`and order_id = ${orderId}`} order by created_at desc limit 1`
  return found[0]!.id
}
const paidCall = (headers: Readonly<Record<string, string>> = {}): Promise<Reply> => world.call("POST", `/v1/proxy/${agent.ticker}`, { token: key.key, body: { prompt: "hi" }, headers })
const order = async (): Promise<string> => {
  const placed = await world.call("POST", "/v1/orders", { token: key.key, body: { agent_id: agent.id, prompt: "work" } })
  expect(placed.status).toBe(201)
  for (;;) {
    const { json } = await world.call("GET", `/v1/orders/${placed.json.id}`, { token: buyer.accessToken })
    if (json.status !== "pending") return placed.json.id
  }
}
const chatTurn = async (): Promise<void> => {
  const chat = await ChatSocket.open(world, agent.ticker, key.key)
  const { done } = await chat.turn("hi")
  chat.send({ type: "close" })
  await chat.closed
  ids["turn's order"] = done["order_id"]
  ids["turn's session"] = done["session_id"]
  ids["turn"] = await idOf(buyer.accountId, "charge", done["order_id"])
}
const adjust = async (amount: bigint, reason: string): Promise<string> => {
  const transactionId = newId<TransactionId>()
  await creditAccount(world.sql, { transactionId, batchId: newId(), auditId: newId(), atMs: Date.now(), email: buyer.email, amount, reason })
  return transactionId
}

/** What no command makes yet, as `decide` would have it. */
const withdraw = async (): Promise<string> => {
  const [id, batchId] = [newId<string>(), newId<string>()]
  await world.alter(buyer, (sql) => sql`
    with taken as (update accounts set available = available - 70000, token = token + 1 where id = ${buyer.accountId} returning available),
      batched as (insert into batches values (${batchId}, 0, 0, 0, 70000, '{}'))
    insert into transactions (id, batch_id, account_id, type, available, reserved, earned, fee, buyback, deposits, withdrawals, balance_after, reference, created_at)
    select ${id}::uuid, ${batchId}::uuid, ${buyer.accountId}::uuid, 'withdrawal', -70000, 0, 0, 0, 0, 0, 70000, available, 'to a bank', now() from taken`)
  return id
}

beforeAll(async () => {
  world = await makeWorld({ settings: { proxyBilling: "paid", launchFee: 50_000n } })
  let status = 200
  buyer = await world.user()
  await buyer.fund("5.00")
  agent = await world.agent({ price: "0.03", respond: () => ({ status, body: "done" }) })
  key = await buyer.key("*", { budgets: [{ amount_usd: "3", window: "day" }] })
  ids["deposit"] = await idOf(buyer.accountId, "deposit")
  ids["fee"] = await idOf(agent.owner.accountId, "fee")
  ids["charge"] = (await paidCall({ "idempotency-key": "the-first" })).headers.get("x-autx-transaction-id")!
  ids["order done"] = await order()
  status = 500
  ids["order failed"] = await order()
  status = 200
  ids["reserve"] = await idOf(buyer.accountId, "reserve", ids["order done"])
  ids["complete"] = await idOf(buyer.accountId, "complete", ids["order done"])
  ids["refund"] = await idOf(buyer.accountId, "refund", ids["order failed"])
  expect((await world.call("GET", "/v1/credits/balance", { token: agent.owner.accessToken })).json.balance_usd).toBe("0.0432")
  ids["earning"] = await idOf(agent.owner.accountId, "earning")
  ids["adjustment"] = await adjust(1_250_000n, "refund of June")
  ids["taken back"] = await adjust(-250_000n, "a mistake\u001b[2J\u202e")
  ids["grant"] = await adjust(10_000n, "without an audit row, as the demo's")
  await world.sql`delete from audit_log where details ->> 'transaction_id' = ${ids["grant"]}`
  ids["withdrawal"] = await withdraw()
  await chatTurn()
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
})
afterAll(() => world.stop())

describe("an explanation decides again, to the same outcome,", () => {
  it.each(["charge", "reserve", "complete", "refund", "deposit", "withdrawal", "adjustment", "earning", "fee"])("a transaction of type %s", async (type) => {
    const explained = await one(ids[type]!)
    expect(explained.evidence.transaction.type).toBe(type)
    expect(explained.differences).toEqual([])
    expect(explained.lines.length).toBeGreaterThan(13)
    expect(explained.lines).toContainEqual({ line: "balance before", books: expect.anything(), replayed: expect.anything() })
  })

  it("from other rows than the transaction, where there are some", async () => {
    const from: Record<string, string> = {}
    for (const name of ["charge", "turn", "reserve", "complete", "refund", "adjustment", "taken back", "grant"]) from[name] = (await one(ids[name]!)).from
    expect(from).toEqual({
      charge: "the call's usage row", turn: "the turn's order", reserve: "the order", complete: "the order", refund: "the order", adjustment: "the operator's audit row", "taken back": "the operator's audit row",
      grant: "the transaction's own amount: no other row records it"
    })
    for (const name of ["taken back", "grant"]) expect((await one(ids[name]!)).differences).toEqual([])
  })

  it("every transaction that was made here, and a call at a price that was changed", async () => {
    expect((await world.call("PATCH", `/v1/agents/${agent.id}`, { token: agent.owner.accessToken, body: { service_price: "0.05" } })).status).toBe(200)
    ids["dearer"] = (await paidCall()).headers.get("x-autx-transaction-id")!
    const dearer = await one(ids["dearer"]!)
    expect(dearer.lines).toContainEqual({ line: "agent's price then", books: "0.05", replayed: "0.05" })
    expect(dearer.evidence.prices.map(({ price }) => price)).toEqual([30_000n, 50_000n])
    for (const { id } of await world.sql<Array<{ id: string }>>`select id from transactions`) expect((await one(id)).differences, id).toEqual([])
  })

  it("a chat turn, by its own id and by its order's", async () => {
    const { lines, evidence } = await one(ids["turn"]!)
    expect((await one(ids["turn's order"]!)).evidence).toEqual(evidence)
    expect(evidence.order).toMatchObject({ status: "completed", amount: 30_000n, session: { id: ids["turn's session"], messageIndex: 1, accountId: buyer.accountId, agentId: agent.id } })
    for (const [line, value] of [["available", "-0.03"], ["earned", "+0.0216"], ["order's transactions", "charge"], ["usage's call", "chat"], ["agent's price then", "0.03"]]) {
      expect(lines).toContainEqual({ line, books: value, replayed: value })
    }
  })

  it("a call whose usage row was dropped when its time was over", async () => {
    const [day] = await world.sql<Array<{ name: string }>>`select tableoid::regclass::text as name from usage limit 1`
    await world.sql.unsafe(`create table kept_day as table ${day!.name}; alter table usage detach partition ${day!.name}`)
    try {
      const explained = await one(ids["charge"]!)
      expect(explained.differences).toEqual([])
      expect(explained.from).toBe("the transaction's own amount: the call's usage row is gone")
    } finally {
      const [bounds] = await world.sql<Array<{ from: string; to: string }>>`select to_date(right(${day!.name}, 8), 'YYYYMMDD')::text as from, (to_date(right(${day!.name}, 8), 'YYYYMMDD') + 1)::text as to`
      await world.sql.unsafe(`alter table usage attach partition ${day!.name} for values from ('${bounds!.from}') to ('${bounds!.to}')`)
    }
    expect((await one(ids["charge"]!)).from).toBe("the call's usage row")
  })
})

describe("an explanation shows", () => {
  it("who paid for which call, by which key, to whom, at which terms", async () => {
    const shown = await text(ids["charge"]!)
    expect(shown).toMatch(new RegExp([
      `^transaction ${ids["charge"]}: charge, a call was paid, \\S+ \\S+ UTC`,
      `  available +-\\$0\\.03   ${buyer.email} \\(account ${buyer.accountId}\\)`,
      `  earnings +\\$0\\.0216   \\S+@example\\.com \\(account ${agent.owner.accountId}\\)`,
      "  platform fee +\\$0\\.003   the platform",
      "  buyback +\\$0\\.0054   the buyback account",
      "  sum +\\$0\\.00",
      `balance      \\$5\\.00 before, \\$4\\.97 after; before it came ${ids["deposit"]}`,
      "call         proxy, answered 200 after \\d+ ms, cost \\$0\\.03, at .* UTC",
      `by           API key "a key" \\(autx_live_\\S+…\\), ${key.id}, active`,
      "             day budget \\$3\\.00, of which \\$\\S+ is spent now",
      `agent        ${agent.ticker} \\(Agent ${agent.ticker}\\), ${agent.id}, owned by account ${agent.owner.accountId}`,
      "             terms of autx: 72 % to the owner, 18 % to the buyback account, the rest to the platform",
      "             price then \\$0\\.03, since .* UTC; now \\$0\\.0\\d",
      "hold         made at .* UTC, captured by this transaction",
      "idempotency  key the-first, used first at .* UTC",
      "batch        [0-9a-f-]{36}",
      "replayed: equal in \\d+ lines, from the call's usage row$"
    ].join("\n")))
    expect(shown).not.toContain(key.key)
  })

  it("of an order's id all that became of the order", async () => {
    const [reserve, refund] = await explain(ids["order failed"]!)
    expect([reserve!.evidence.transaction.type, refund!.evidence.transaction.type]).toEqual(["reserve", "refund"])
    const shown = textOf(refund!.evidence, refund!)
    expect(shown).toContain(`order        ${ids["order failed"]}, failed, $0.03 by credits`)
    expect(shown).toContain("failed: the agent answered 500")
    expect(shown).toContain("call         order, answered 500 after")
    const [, done] = await explain(ids["order done"]!)
    expect(done!.evidence.predecessor).toBe(ids["reserve"])
    expect((await explain(ids["order done"]!)).map(({ evidence }) => evidence.transaction.id)).toEqual([ids["reserve"], ids["complete"]])
  })

  it("which session a chat turn belongs to, and no hold of its own", async () => {
    const shown = await text(ids["turn"]!)
    expect(shown).toMatch(new RegExp([
      `^transaction ${ids["turn"]}: charge, a chat turn was paid, .*`,
      "(.*\n)+call         chat, answered 200 after \\d+ ms, cost \\$0\\.03, at .* UTC",
      `(.*\n)+order        ${ids["turn's order"]}, completed, \\$0\\.03 by credits`,
      "             created .* UTC, ended .* UTC",
      `             transactions: charge ${ids["turn"]}`,
      `session      ${ids["turn's session"]}, its turn 1, begun .* UTC`,
      "batch        [0-9a-f-]{36}",
      "replayed: equal in \\d+ lines, from the turn's order$"
    ].join("\n")))
  })

  it("what an operator did, with nothing in it that a terminal would obey", async () => {
    const shown = await text(ids["taken back"]!)
    expect(shown).toContain("reference    a mistake\\u{1b}[2J\\u{202e}")
    expect(shown).toContain("operator account.credit")
    expect(shown).not.toMatch(/[^\P{Cc}\n]|\p{Cf}/u)
    expect(await text(ids["fee"]!)).toMatch(/^audit .* user:\S+ agent\.create /m)
  })

  it("when a batch was folded into the books", async () => {
    const { evidence: { transaction } } = await one(ids["deposit"]!)
    const [batch] = await world.sql`delete from batches where id = ${transaction.batchId} returning *`
    expect(await text(ids["deposit"]!)).toContain(`batch        ${transaction.batchId}, folded into the books`)
    await world.sql`insert into batches ${world.sql(batch!)}`
  })
})

/** What is done to the rows of a transaction, and which lines name it. */
const corruptions: ReadonlyArray<readonly [what: string, of: string, statement: (id: string) => string, lines: ReadonlyArray<string>]> = [
  ["another price", "charge", (id) => `update transactions set available = available * 2, earned = earned * 2, fee = fee * 2, buyback = buyback * 2 where id = '${id}'`, ["available", "earned", "fee", "buyback", "balance before", "balance after"]],
  ["a unit that went from the owner to the platform", "charge", (id) => `update transactions set earned = earned - 1, fee = fee + 1 where id = '${id}'`, ["earned", "fee"]],
  ["an invented unit", "charge", (id) => `update transactions set buyback = buyback + 1 where id = '${id}'`, ["buyback"]],
  ["another earner", "charge", (id) => `update transactions set earner_id = account_id where id = '${id}'`, ["earner"]],
  ["another agent", "complete", (id) => `update transactions set agent_id = account_id where id = '${id}'`, ["agent"]],
  ["another key", "charge", (id) => `update transactions set subject_id = account_id where id = '${id}'`, ["key or login", "usage's key or login"]],
  ["another balance", "charge", (id) => `update transactions set balance_after = balance_after + 1 where id = '${id}'`, ["balance before"]],
  ["another type", "charge", (id) => `update transactions set type = 'fee' where id = '${id}'`, ["available", "earned", "buyback", "balance after", "earner", "agent", "key or login", "reference"]],
  ["another price of a turn", "turn", (id) => `update transactions set available = available * 2, earned = earned * 2, fee = fee * 2, buyback = buyback * 2 where id = '${id}'`, ["available", "earned", "fee", "buyback", "balance before", "balance after", "order's fee"]],
  ["a turn that costs another amount", "turn", (id) => `update orders set amount = 20000 where id = (select order_id from transactions where id = '${id}')`, ["available", "earned", "fee", "buyback", "balance after", "usage's cost", "agent's price then"]],
  ["a turn of another key", "turn", (id) => `update orders set subject_id = account_id where id = (select order_id from transactions where id = '${id}')`, ["key or login"]],
  ["a turn that ended at another time", "turn", (id) => `update orders set completed_at = completed_at - interval '1 second' where id = (select order_id from transactions where id = '${id}')`, ["time"]],
  ["a turn that is gone", "turn", (id) => `delete from orders where id = (select order_id from transactions where id = '${id}')`, ["order"]],
  ["a turn that became an order", "turn", (id) => `update orders set session_id = null, message_index = null where id = (select order_id from transactions where id = '${id}')`, ["order's transactions", "session's account", "session's agent"]],
  ["a session of somebody else", "turn", (id) => `update sessions set account_id = agent_id where id = (select session_id from orders o join transactions t on t.order_id = o.id where t.id = '${id}')`, ["session's account"]],
  ["a session that is gone", "turn", () => "delete from sessions", ["session's account", "session's agent"]],
  ["a turn that lost its order", "turn", (id) => `update transactions set order_id = null where id = '${id}'`, ["usage's call"]],
  ["a call that costs another amount", "charge", (id) => `update usage set cost = 20000 where id = '${id}'`, ["available", "earned", "fee", "buyback", "balance after", "agent's price then"]],
  ["a lost usage row", "charge", (id) => `delete from usage where id = '${id}'`, ["usage rows"]],
  ["a usage row twice", "charge", (id) => `insert into usage select * from usage where id = '${id}'`, ["usage rows"]],
  ["a price that was never asked", "reserve", () => `update audit_log set details = details || '{"price": "20000"}', created_at = created_at - interval '1 hour' where action = 'agent.create'; delete from audit_log where action = 'agent.update'`, ["agent's price then"]],
  ["an order of another amount", "reserve", (id) => `update orders set amount = 29999 where id = (select order_id from transactions where id = '${id}')`, ["available", "reserved", "balance after", "agent's price then"]],
  ["another time of an order", "reserve", (id) => `update orders set created_at = created_at - interval '1 second' where id = (select order_id from transactions where id = '${id}')`, ["time"]],
  ["an order that is gone", "reserve", (id) => `delete from orders where id = (select order_id from transactions where id = '${id}')`, ["order"]],
  ["another fee of an order", "complete", (id) => `update orders set fee = 2999 where id = (select order_id from transactions where id = '${id}')`, ["order's fee"]],
  ["an order that failed and was paid", "complete", (id) => `update orders set status = 'failed' where id = (select order_id from transactions where id = '${id}')`, ["order's transactions", "order's status"]],
  ["a refund that kept something", "refund", (id) => `update transactions set available = available - 1, fee = fee + 1 where id = '${id}'`, ["available", "fee", "balance before", "balance after", "order's fee"]],
  ["a refund that cost something", "refund", (id) => `update usage set cost = 30000 where id = '${id}'`, ["usage's cost"]],
  ["a deposit that came from nowhere", "deposit", (id) => `update transactions set deposits = 0, fee = -available where id = '${id}'`, ["available", "fee", "balance after"]],
  ["an adjustment of another amount", "adjustment", (id) => `update transactions set available = available + 1, deposits = deposits - 1 where id = '${id}'`, ["available", "deposits", "balance before", "balance after"]],
  ["an adjustment for another reason", "adjustment", (id) => `update transactions set reference = 'refund of July' where id = '${id}'`, ["reference"]],
  ["earnings of somebody else", "earning", (id) => `update transactions set earner_id = '${newId<string>()}' where id = '${id}'`, ["earner"]],
  ["a fee that paid more than it took", "fee", (id) => `update transactions set fee = fee + 1 where id = '${id}'`, ["outcome"]],
  ["a withdrawal that kept something here", "withdrawal", (id) => `update transactions set withdrawals = withdrawals - 1, buyback = 1 where id = '${id}'`, ["available", "buyback", "balance after"]]
]
const tables = ["transactions", "usage", "orders", "sessions", "audit_log"]

/** From then on rows can be made wrong, and `restore` brings back what they are now. */
const makeBreakable = () => world.sql.unsafe(`alter table transactions drop constraint transactions_balanced, drop constraint transactions_type_known; ${tables.map((table) => `create table kept_${table} as table ${table}`).join("; ")}`)
const restore = () => world.sql.unsafe(tables.map((table) => `truncate ${table}; insert into ${table} select * from kept_${table}`).join("; "))

describe("an explanation names", () => {
  beforeAll(makeBreakable)

  it.each(corruptions)("%s in the rows of a %s", async (_what, of, statement, lines) => {
    await world.sql.unsafe(statement(ids[of]!))
    try {
      const { differences, evidence, ...replayed } = await one(ids[of]!)
      expect(differences.map(({ line }) => line).sort()).toEqual([...lines].sort())
      expect(textOf(evidence, { ...replayed, differences })).toContain(`replayed: differs in ${lines.length} of`)
    } finally {
      await restore()
    }
  })
})

describe("the balance before", () => {
  it("is not asked for where another node spent from a lease at that time, in this transaction or in one shortly before", async () => {
    const turn = ids["turn"]!
    const differs = async () => (await one(turn)).differences.map(({ line }) => line)
    const leased = (which: string) => world.sql.unsafe(`
      update transactions set lease_id = null;
      update transactions t set lease_id = gen_random_uuid() from transactions own where own.id = '${turn}' and t.account_id = own.account_id and ${which}`)
    try {
      await world.sql`update transactions set balance_after = balance_after + 1 where id = ${turn}`
      expect(await differs()).toEqual(["balance before"])
      await leased("t.id = own.id")
      expect(await differs()).toEqual([])
      await leased("t.id = (select max(id::text)::uuid from transactions where account_id = own.account_id and id < own.id)")
      expect(await differs()).toEqual([])
      await world.sql`update transactions set created_at = created_at - interval '1 hour' where lease_id is not null`
      expect(await differs()).toEqual(["balance before"])
    } finally {
      await restore()
    }
  })
})

describe("the price of a chat turn", () => {
  it("is what its agent cost when its session began, whatever came after", async () => {
    const begun = (hours: number) => world.sql`update sessions set started_at = now() - ${hours} * interval '1 hour' where id = ${ids["turn's session"]!}`
    const priced = "target = $1 and action = 'agent.create'"
    await world.sql.begin(async (sql) => {
      await sql.unsafe(`insert into audit_log select gen_random_uuid(), account_id, actor, 'agent.update', target, '{"fields": ["price"], "price": "50000"}', now() - interval '2 hours' from audit_log where ${priced}`, [agent.id])
      await sql.unsafe(`update audit_log set created_at = now() - interval '9 hours' where ${priced}`, [agent.id])
    })
    try {
      await begun(1)
      expect((await one(ids["turn"]!)).differences.map(({ line, replayed }) => [line, replayed])).toEqual([["agent's price then", "0.05"]])
      await begun(3)
      expect((await one(ids["turn"]!)).differences).toEqual([])
    } finally {
      await restore()
    }
  })
})

interface Ended { readonly code: number; readonly out: string; readonly err: string }

describe("npm run explain", () => {
  const run = (...args: ReadonlyArray<string>): Promise<Ended> => new Promise((done) => {
    const { host, port, user, database } = world.store.options
    const { DATA_DIR: _, ...inherited } = process.env
    execFile(process.execPath, ["dist/explain.js", ...args], { env: { ...inherited, DATABASE_URL: `postgres:///${database}`, PGHOST: host, PGPORT: String(port), PGUSER: user } },
      (error, out, err) => done({ code: error === null ? 0 : Number(error.code), out, err }))
  })

  it("explains beside a gateway, in text and as JSON, and ends with 1 once something differs", async () => {
    const [shown, { code, out, err }] = await Promise.all([run(ids["charge"]!), run(ids["order done"]!, "--json")])
    expect(shown).toEqual({ code: 0, out: `${await text(ids["charge"]!)}\n`, err: "" })
    expect([code, err]).toEqual([0, ""])
    expect(JSON.parse(out)).toMatchObject({
      id: ids["order done"], replayed: "equal",
      transactions: [
        { evidence: { transaction: { id: ids["reserve"], type: "reserve", available: "-0.03", reserved: "0.03" } }, differences: [] },
        { evidence: { transaction: { id: ids["complete"], type: "complete", fee: "0.003" }, order: { status: "completed" } }, differences: [] }
      ]
    })
    await world.sql`update orders set fee = 2999 where id = ${ids["order done"]!}`
    const [told, asJson] = await Promise.all([run(ids["order done"]!), run("--json", ids["order done"]!)])
    await world.sql`update orders set fee = 3000 where id = ${ids["order done"]!}`
    expect([told.code, asJson.code]).toEqual([1, 1])
    expect(told.out).toContain("replayed: differs in 1 of")
    expect(told.out).toContain("\n  order's fee: books 0.002999, replayed 0.003\n")
    expect(JSON.parse(asJson.out)).toMatchObject({ replayed: "differs", transactions: [{ differences: [] }, { differences: [{ line: "order's fee", books: "0.002999", replayed: "0.003" }] }] })
  })

  it("says in one line what it can't find or read", async () => {
    const nobody = newId<string>()
    const [unknown, word, none, two, flag] = await Promise.all([run(nobody), run("the-last-one"), run(), run(nobody, nobody), run("--jsom")])
    for (const { code, out } of [unknown, word, none, two, flag]) expect([code, out]).toEqual([1, ""])
    expect(unknown.err).toMatch(new RegExp(`^explain: no transaction is "${nobody}" or belongs to an order of that id; usage: [^\n]*\n$`))
    expect(word.err).toMatch(/^explain: no transaction is "the-last-one" or belongs to an order of that id; usage: /)
    for (const { err } of [none, two, flag]) expect(err).toMatch(/^explain: usage: [^\n]*\n$/)
  })
})
