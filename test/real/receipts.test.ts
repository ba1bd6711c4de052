/** Receipts as their readers see them: drawn, and read back, by another program. */
import { Effect, Exit, Fiber, ManagedRuntime } from "effect"
import { describe, expect, it } from "vitest"
import { limits } from "../../src/config.ts"
import { Overloaded } from "../../src/domain/errors.ts"
import type { AccountId } from "../../src/domain/ids.ts"
import type { ReceiptData } from "../../src/domain/receipt.ts"
import { downloadReceipt, drawReceipt } from "../../src/kernel/Receipts.ts"
import { receiptPdf } from "../../src/mail/Receipt.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { Postgres } from "../../src/store/Postgres.ts"
import { closedSession } from "../support/closedSession.ts"
import { pagesOf, picturesOf } from "../support/poppler.ts"
import { useStage } from "../support/Stage.ts"

const orderId = (at: number): string => `01a20156-8ad4-747b-a076-${String(at).padStart(12, "0")}`
const receipt = (turns: number, more: Partial<ReceiptData> = {}): ReceiptData => ({
  sessionId: "ses_01a201568ad4747ba076ddf52a874be1", agent: { ticker: "SUMM", name: "Zusammenfassung – für alle" }, billedTo: "somebody@example.com",
  startedAt: new Date("2026-11-22T08:01:02Z"), closedAt: new Date("2026-11-23T00:23:29Z"),
  turns: Array.from({ length: turns }, (_, at) => ({ index: at + 1, orderId: orderId(at), at: new Date(Date.UTC(2026, 10, 22, 8, 2, at)), amount: 20_000n })),
  total: 20_000n * BigInt(turns), issuer: "https://gateway.example.com", ...more
})
const read = async (data: ReceiptData): Promise<ReadonlyArray<string>> => pagesOf(await receiptPdf(data))
/** Cells of the line that begins so; columns are at least two spaces apart. */
const cells = (page: string, start: string): ReadonlyArray<string> | undefined =>
  page.split("\n").map((line) => line.trim().split(/ {2,}/)).find(([first]) => first === start)

describe("a receipt", () => {
  it("names its issuer, number, day, payer, agent and session, each turn, the total and how it was paid", async () => {
    const turns = [[12_500n, 9], [1n, 10], [1_000_000n, 75]] as const
    const [page = "", ...others] = await read(receipt(0, {
      turns: turns.map(([amount, second], at) => ({ index: at + 1, orderId: orderId(at), at: new Date(Date.UTC(2026, 10, 22, 8, 1, second)), amount })), total: 1_012_501n
    }))
    expect(others).toEqual([])
    expect(cells(page, "Receipt")).toEqual(["Receipt", "https://gateway.example.com"])
    expect(cells(page, "ses_01a201568ad4747ba076ddf52a874be1")?.[1]).toBe("somebody@example.com")
    expect(cells(page, "2026-11-23")?.[1]).toBe("Zusammenfassung – für alle (SUMM)")
    expect(cells(page, "2026-11-22 08:01:02 to 2026-11-23 00:23:29 UTC")?.[1]).toBe("Prepaid credits, US dollars")
    expect(cells(page, "Turn")).toEqual(["Turn", "Time (UTC)", "Order", "Amount (USD)"])
    expect(cells(page, "1")).toEqual(["1", "2026-11-22 08:01:09", orderId(0), "$0.012500"])
    expect(cells(page, "2")).toEqual(["2", "2026-11-22 08:01:10", orderId(1), "$0.000001"])
    expect(cells(page, "3")).toEqual(["3", "2026-11-22 08:02:15", orderId(2), "$1.000000"])
    expect(cells(page, "Subtotal")?.[1]).toBe("$1.012501")
    expect(cells(page, "Total")?.[1]).toBe("$1.012501")
    expect(cells(page, "Paid from prepaid credits")?.[1]).toBe("-$1.012501")
    expect(cells(page, "Amount due")?.[1]).toBe("$0.00")
    expect(page).toContain("All amounts are in US dollars (USD) and final.")
    expect(cells(page, "Receipt ses_01a201568ad4747ba076ddf52a874be1")?.[1]).toBe("Page 1 of 1")
  })

  it("of many turns repeats the table's head on each page, numbers them, and has each turn once and the total at the end", async () => {
    const pages = await read(receipt(150))
    expect(pages.length).toBeGreaterThan(3)
    pages.forEach((page, at) => {
      expect(cells(page, "Receipt ses_01a201568ad4747ba076ddf52a874be1")?.[1]).toBe(`Page ${at + 1} of ${pages.length}`)
      expect(cells(page, "Turn")).toEqual(["Turn", "Time (UTC)", "Order", "Amount (USD)"])
      expect(page).toContain("https://gateway.example.com")
      expect(cells(page, "Total")?.[1]).toBe(at === pages.length - 1 ? "$3.00" : undefined)
    })
    const listed = pages.flatMap((page) => [...page.matchAll(/^ *(\d+) +2026-11-22 \d\d:\d\d:\d\d +(\S+) +\$0\.02$/gm)].map(([, index, order]) => [Number(index), order]))
    expect(listed).toEqual(Array.from({ length: 150 }, (_, at) => [at + 1, orderId(at)]))
  })

  it("has room for its total whatever the number of turns, and no empty page", async () => {
    // About as many as fill the first page, or the second.
    const counts = [0, 1, ...Array.from({ length: 14 }, (_, at) => 23 + at), ...Array.from({ length: 14 }, (_, at) => 67 + at)]
    for (const [at, pages] of (await Promise.all(counts.map((turns) => read(receipt(turns))))).entries()) {
      const turns = counts[at]!
      const last = pages.at(-1)!
      expect(cells(last, "Amount due"), `${turns} turns`).toEqual(["Amount due", "$0.00"])
      for (const page of pages.slice(0, -1)) expect(page, `${turns} turns`).toMatch(/^ *\d+ +2026-11-22/m)
    }
  })

  it("of more turns than it lists adds the others up", async () => {
    const pages = await read(receipt(2_345))
    const last = pages.at(-1)!
    expect(cells(last, "2000")?.[2]).toBe(orderId(1_999))
    expect(cells(last, "Other turns of the session, not listed here")?.[1]).toBe("$6.90")
    expect(cells(last, "Total")?.[1]).toBe("$46.90")
  })

  it("keeps its margins with the longest texts, and leaves out only what can't be written", async () => {
    const longest = `${"a".repeat(64)}@${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(57)}.com`
    const pdf = await receiptPdf(receipt(60, {
      billedTo: longest, issuer: `https://${"w".repeat(300)}.example.com`, agent: { ticker: "SUMM", name: "Wide Words Wherever Writing Works ".repeat(20) }
    }))
    const [page = ""] = await pagesOf(pdf)
    const [, facts = ""] = /BILLED TO\n([^]*?)\n *DATE/.exec(page) ?? []
    expect(facts.replace("ses_01a201568ad4747ba076ddf52a874be1", "").replace(/\s+/g, "")).toBe(longest)
    for (const { isInked } of await picturesOf(pdf)) {
      expect([isInked(0.09, 0.06, 0.92, 0.93), isInked(0.09, 0.93, 0.92, 0.97)]).toEqual([true, true])
      expect([isInked(0, 0, 1, 0.05), isInked(0, 0, 0.085, 1), isInked(0.92, 0, 1, 1), isInked(0, 0.965, 1, 1)]).toEqual([false, false, false, false])
    }
    const [otherScript = ""] = await read(receipt(1, { agent: { ticker: "SUMM", name: "文档总结" } }))
    expect(cells(otherScript, "2026-11-23")?.[1]).toBe("SUMM")
  })
})

describe("downloads of receipts", () => {
  const stage = useStage()

  const start = async () => {
    const { options, sql } = await stage.database()
    await migrate(sql)
    const runtime = ManagedRuntime.make(Postgres.layer(options))
    stage.onEnd(() => runtime.dispose())
    await runtime.runPromise(Postgres)
    return { sql, runtime }
  }

  it("are drawn one at a time, in the order in which they were asked for", async () => {
    const { sql, runtime } = await start()
    const [long, short] = [await closedSession(sql, { turns: 400 }), await closedSession(sql)]
    const done: Array<string> = []
    await Promise.all([long, short].map(async ({ accountId, sessionId }) => {
      await runtime.runPromise(downloadReceipt(accountId as AccountId, sessionId, "https://gateway.test"))
      done.push(sessionId)
    }))
    expect(done).toEqual([long.sessionId, short.sessionId])
  })

  it("beyond those that may wait are refused, who goes away makes room, and letters are never refused", async () => {
    const { sql, runtime } = await start()
    const { accountId, sessionId, email } = await closedSession(sql)
    const ask = [accountId as AccountId, sessionId, "https://gateway.test"] as const
    const request = (count: number) => Array.from({ length: count }, () => runtime.runFork(downloadReceipt(...ask)))
    const ends = (fibers: ReturnType<typeof request>) => runtime.runPromise(Effect.forEach(fibers, Fiber.await))

    const first = request(limits.receiptsWaitingMax + 1)
    const refused = request(3)
    const letter = runtime.runPromise(drawReceipt(...ask))
    await runtime.runPromise(Fiber.interruptAll(first.slice(-5)))
    const second = request(5)
    for (const exit of await ends(refused)) expect(Exit.isFailure(exit) && exit.cause.reasons[0]).toMatchObject({ error: new Overloaded({ what: "receipts", retryAfterMs: 1_000 }) })
    for (const exit of await ends([...first.slice(0, -5), ...second])) expect(Exit.isSuccess(exit) && exit.value?.receipt).toMatchObject({ sessionId, billedTo: email, total: 1_500_000n })
    expect(Buffer.from((await letter)!.pdf).subarray(0, 5).toString()).toBe("%PDF-")
    expect(Exit.isSuccess((await ends(request(1)))[0]!)).toBe(true)
  })

  it("find nothing of a session that is open, unknown or another's", async () => {
    const { sql, runtime } = await start()
    const [mine, others, open] = [await closedSession(sql), await closedSession(sql), await closedSession(sql)]
    await sql`update sessions set status = 'active', closed_at = null where id = ${open.sessionId}`
    const find = (accountId: string, sessionId: string) => runtime.runPromise(drawReceipt(accountId as AccountId, sessionId, "https://gateway.test"))
    expect((await find(mine.accountId, mine.sessionId))?.receipt.sessionId).toBe(mine.sessionId)
    expect(await Promise.all([find(mine.accountId, others.sessionId), find(open.accountId, open.sessionId), find(mine.accountId, "nothing")])).toEqual([undefined, undefined, undefined])
  })
})
