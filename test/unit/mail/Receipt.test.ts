import fc from "fast-check"
import { createHash } from "node:crypto"
import { describe, expect, it } from "vitest"
import type { ReceiptData } from "../../../src/domain/receipt.ts"
import { receiptPdf } from "../../../src/mail/Receipt.ts"

const receipt = (turns: number, more: Partial<ReceiptData> = {}): ReceiptData => ({
  sessionId: "ses_01a201568ad4747ba076ddf52a874be1", agent: { ticker: "SUMM", name: "Summarizer" }, billedTo: "somebody@example.com",
  startedAt: new Date("2026-11-22T08:01:02Z"), closedAt: new Date("2026-11-22T09:23:29Z"),
  turns: Array.from({ length: turns }, (_, at) => ({ index: at + 1, orderId: `01a20156-8ad4-747b-a076-${String(at).padStart(12, "0")}`, at: new Date(1_795_336_862_000 + at * 7_000), amount: 20_000n })),
  total: 20_000n * BigInt(turns), issuer: "https://gateway.example.com", ...more
})

const hashOf = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

describe("a receipt", () => {
  it("is the same bytes for the same data, also when others are drawn at the same time, and other bytes for other data", async () => {
    const [first, second, other] = await Promise.all([receiptPdf(receipt(200)), receiptPdf(receipt(200)), receiptPdf(receipt(200, { billedTo: "other@example.com" }))])
    expect(hashOf(second)).toBe(hashOf(first))
    expect(hashOf(other)).not.toBe(hashOf(first))
  })

  it("lets others work while it is drawn", async () => {
    await receiptPdf(receipt(1)) // Loads what it is drawn with.
    let turns = 0
    let drawing = true
    const count = (): void => {
      turns++
      if (drawing) setImmediate(count)
    }
    setImmediate(count)
    await receiptPdf(receipt(2_000))
    drawing = false
    expect(turns).toBeGreaterThan(150)
  })

  it("does not grow with turns beyond those that it lists", async () => {
    const [listed, beyond] = await Promise.all([receiptPdf(receipt(2_000)), receiptPdf(receipt(20_000))])
    expect(beyond.length).toBeLessThan(listed.length * 1.01)
  })

  it("is made of any text", async () => {
    const text = fc.string({ unit: "binary", maxLength: 2_000 })
    await fc.assert(fc.asyncProperty(text, text, text, text, async (name, ticker, billedTo, issuer) => {
      const pdf = Buffer.from(await receiptPdf(receipt(1, { agent: { name, ticker }, billedTo, issuer })))
      expect(pdf.subarray(0, 5).toString()).toBe("%PDF-")
      expect(pdf.subarray(-6).toString()).toBe("%%EOF\n")
    }), { numRuns: 50 })
  })
})
