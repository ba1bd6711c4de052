/**
 * A receipt as PDF: who issued it, to whom, for which session, every turn with
 * its order and amount, the total, and how it was paid.
 *
 * Pure: the same data makes the same bytes. Any text will do; what the built-in
 * fonts lack is spelled without it (`winAnsi.ts`). At most `receiptTurnsMax`
 * turns are listed and the others added up, so that none takes more than some
 * 45 pages and half a second, of which other work waits for a few
 * milliseconds at a time. pdfkit is loaded by a process's first receipt: it
 * takes 25 MB, and a tenth of a second once.
 */
import { setImmediate as breath } from "node:timers/promises"
import type PDFDocument from "pdfkit"
import { limits } from "../config.ts"
import { type Credits, formatUsd } from "../domain/credits.ts"
import type { ReceiptData } from "../domain/receipt.ts"
import { winAnsi } from "./winAnsi.ts"

type Document = InstanceType<typeof PDFDocument>

/** Of an A4 page, in points. */
const sheet = { left: 54, right: 541.28, top: 54, bottom: 778, footer: 796 }
const rowHeight = 15
/** Of the issuer's line on later pages, of the table's head, and of what follows the last row, in rows. */
const issuerHeight = 20
const headHeight = 6 + rowHeight
const totalsRows = 9
const rowsPerBreath = 10
/** An email may have 254. */
const textCharsMax = 254
const columns = { index: 84, time: 100, order: 214, amount: sheet.right }

const ink = { text: "#1a1a1a", faint: "#6b6b6b", line: "#c9c9c9" }
const plain = "Helvetica"
const bold = "Helvetica-Bold"

interface Row {
  readonly index: string
  readonly time: string
  readonly order: string
  readonly amount: string
}

interface Receipt {
  readonly id: string
  readonly issuer: string
  readonly facts: ReadonlyArray<readonly [left: Fact, right: Fact]>
  readonly rows: ReadonlyArray<Row>
  readonly total: string
}
type Fact = readonly [label: string, value: string]

const timeOf = (at: Date): string => at.toISOString().slice(0, 19).replace("T", " ")
const dayOf = (at: Date): string => at.toISOString().slice(0, 10)

/** How many decimals an amount needs, two at least. */
const decimalsOf = (amount: Credits): number => formatUsd(amount).split(".")[1]!.length

/** Everything in words and figures, the amounts with as many decimals as the one that needs most. */
const receiptOf = ({ sessionId, agent, billedTo, startedAt, closedAt, turns, total, issuer }: ReceiptData): Receipt => {
  const listed = turns.slice(0, limits.receiptTurnsMax)
  const others = listed.reduce((rest, { amount }) => rest - amount, total)
  const decimals = listed.reduce((most, { amount }) => Math.max(most, decimalsOf(amount)), decimalsOf(total))
  const usd = (amount: Credits): string => {
    const text = formatUsd(amount)
    return `$${text}${"0".repeat(decimals - decimalsOf(amount))}`.replace("$-", "-$")
  }
  const shown = (text: string): string => winAnsi(text, textCharsMax)
  const name = shown(agent.name)
  return {
    id: shown(sessionId),
    issuer: shown(issuer),
    facts: [
      [["Receipt number", shown(sessionId)], ["Billed to", shown(billedTo)]],
      [["Date", dayOf(closedAt)], ["Agent", name === "" || name === "…" ? shown(agent.ticker) : `${name} (${shown(agent.ticker)})`]],
      [["Chat session", `${timeOf(startedAt)} to ${timeOf(closedAt)} UTC`], ["Paid with", "Prepaid credits, US dollars"]]
    ],
    rows: [
      ...listed.map(({ index, orderId, at, amount }) => ({ index: String(index), time: timeOf(at), order: shown(orderId), amount: usd(amount) })),
      ...(others === 0n ? [] : [{ index: "", time: "Other turns of the session, not listed here", order: "", amount: usd(others) }])
    ],
    total: usd(total)
  }
}

/** At a base line; `x` is the right end when `right` is set. */
const put = (doc: Document, text: string, x: number, y: number, right = false): void => {
  doc.text(text, right ? x - doc.widthOfString(text) : x, y, { lineBreak: false, baseline: "alphabetic" })
}

const rule = (doc: Document, y: number): void => {
  doc.moveTo(sheet.left, y).lineTo(sheet.right, y).lineWidth(0.5).strokeColor(ink.line).stroke()
}

/** Lines that fit, parted at spaces and before an @ where there are some. */
const wrap = (doc: Document, text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  for (let rest = text; rest !== "";) {
    let end = rest.length
    while (end > 1 && doc.widthOfString(rest.slice(0, end)) > width) end--
    const gap = end < rest.length ? Math.max(rest.lastIndexOf(" ", end), rest.lastIndexOf("@", end)) : -1
    lines.push(rest.slice(0, gap > 0 ? gap : end))
    rest = rest.slice(gap > 0 ? gap : end).trimStart()
  }
  return lines
}

/** The first page down to its table; answers where that is. */
const drawHead = (doc: Document, { issuer, facts }: Receipt): number => {
  doc.font(bold).fontSize(22).fillColor(ink.text)
  put(doc, "Receipt", sheet.left, sheet.top + 18)
  doc.font(plain).fontSize(9)
  const issuers = wrap(doc, issuer, 300)
  issuers.forEach((line, at) => put(doc, line, sheet.right, sheet.top + 18 + 12 * at, true))
  let y = sheet.top + 24 + 12 * issuers.length
  rule(doc, y)
  y += 24
  const middle = (sheet.left + sheet.right) / 2
  for (const pair of facts) {
    const ends = pair.map(([label, value], at) => {
      const x = at === 0 ? sheet.left : middle
      doc.font(bold).fontSize(7.5).fillColor(ink.faint)
      put(doc, label.toUpperCase(), x, y)
      doc.font(plain).fontSize(9.5).fillColor(ink.text)
      const lines = wrap(doc, value, sheet.right - middle - 12)
      lines.forEach((line, row) => put(doc, line, x, y + 14 + 12 * row))
      return y + 14 + 12 * lines.length
    })
    y = Math.max(...ends) + 16
  }
  return y
}

/** What stands above and below the table of every page; answers where the first row goes. */
const drawFrame = (doc: Document, { id, issuer }: Receipt, page: number, pages: number, y: number): number => {
  doc.font(plain).fontSize(7.5).fillColor(ink.faint)
  put(doc, `Receipt ${id}`, sheet.left, sheet.footer)
  put(doc, `Page ${page} of ${pages}`, sheet.right, sheet.footer, true)
  if (page > 1) {
    const [first = ""] = wrap(doc, issuer, sheet.right - sheet.left)
    put(doc, first, sheet.left, y)
    y += issuerHeight
  }
  doc.font(bold).fontSize(8).fillColor(ink.text)
  put(doc, "Turn", columns.index, y, true)
  put(doc, "Time (UTC)", columns.time, y)
  put(doc, "Order", columns.order, y)
  put(doc, "Amount (USD)", columns.amount, y, true)
  rule(doc, y + 6)
  doc.font(plain).fontSize(8.5).fillColor(ink.text)
  return y + headHeight
}

const drawRow = (doc: Document, row: Row, y: number): void => {
  put(doc, row.index, columns.index, y, true)
  put(doc, row.time, columns.time, y)
  put(doc, row.order, columns.order, y)
  put(doc, row.amount, columns.amount, y, true)
}

const drawTotals = (doc: Document, { total }: Receipt, y: number): void => {
  rule(doc, y)
  const lines: ReadonlyArray<readonly [font: string, label: string, amount: string]> = [
    [plain, "Subtotal", total], [bold, "Total", total], [plain, "Paid from prepaid credits", `-${total}`], [bold, "Amount due", "$0.00"]
  ]
  lines.forEach(([font, label, amount], at) => {
    doc.font(font).fontSize(9.5).fillColor(ink.text)
    put(doc, label, 310, y + 20 + 17 * at)
    put(doc, amount, sheet.right, y + 20 + 17 * at, true)
  })
  doc.font(plain).fontSize(8).fillColor(ink.faint)
  put(doc, "All amounts are in US dollars (USD) and final. Each turn was charged once, when its answer was complete.", sheet.left, y + 112)
  put(doc, "Nothing is left to pay: the credits were bought before.", sheet.left, y + 124)
}

/** Rows page by page. The totals need room below the last. */
const paginate = (rows: ReadonlyArray<Row>, firstFits: number, laterFits: number): ReadonlyArray<ReadonlyArray<Row>> => {
  const pages = [rows.slice(0, firstFits)]
  for (let at = firstFits; at < rows.length; at += laterFits) pages.push(rows.slice(at, at + laterFits))
  const fits = pages.length === 1 ? firstFits : laterFits
  return fits - pages.at(-1)!.length < totalsRows ? [...pages, []] : pages
}

/** Others work between a few rows. */
const draw = async (doc: Document, receipt: Receipt): Promise<void> => {
  doc.addPage()
  const tableY = drawHead(doc, receipt)
  const fitting = (headY: number): number => Math.floor((sheet.bottom - headY) / rowHeight)
  // How many there will be stands on the first.
  const pages = paginate(receipt.rows, fitting(tableY + headHeight), fitting(sheet.top + issuerHeight + headHeight))
  let y = tableY
  for (const [at, rows] of pages.entries()) {
    if (at > 0) doc.addPage()
    y = drawFrame(doc, receipt, at + 1, pages.length, at > 0 ? sheet.top : tableY)
    for (const [done, row] of rows.entries()) {
      if (done % rowsPerBreath === 0) await breath()
      drawRow(doc, row, y)
      y += rowHeight
    }
  }
  drawTotals(doc, receipt, y)
}

/** Whoever draws for strangers does so through `kernel/Receipts.ts`, one at a time. */
export const receiptPdf = async (data: ReceiptData): Promise<Uint8Array> => {
  const { default: Pdf } = await import("pdfkit")
  const receipt = receiptOf(data)
  const doc = new Pdf({
    size: "A4", margin: 0, autoFirstPage: false, lang: "en", displayTitle: true,
    // The file's id is made of these.
    info: { Title: `Receipt ${receipt.id}`, Author: receipt.issuer, Creator: "Tollgate", Producer: "Tollgate", CreationDate: data.closedAt }
  })
  const parts: Array<Uint8Array> = []
  const whole = new Promise<Uint8Array>((done, fail) => doc.on("data", (part: Uint8Array) => parts.push(part)).on("end", () => done(Buffer.concat(parts))).on("error", fail))
  await draw(doc, receipt)
  doc.end()
  return whole
}
