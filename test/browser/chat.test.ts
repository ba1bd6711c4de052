/** The chat page as people use it, in Chromium, with a real gateway, a real agent that takes its time, and a connection that can be cut. */
import type { Browser, Page } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type OpenPage, openPage, startBrowser } from "../support/browser.ts"
import type { GatewayProcess, Person } from "../support/GatewayProcess.ts"
import { TcpCut } from "../sdk/TcpCut.ts"
import { expectCleanBooks, type StageDatabase, useStage } from "../support/Stage.ts"

const words = "Calls come in. Each one is paid. None is lost, and the books add up at the end of the day.".split(/(?<= )/)
const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`

const stage = useStage(afterAll)
let browser: Browser
let gateway: GatewayProcess
let database: StageDatabase
let buyer: Person
let key: string
let ticker: string
let evilTicker: string
/** Lets a held answer go on. */
let goOn = (): void => {}

const event = (text: string): string => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`

beforeAll(async () => {
  database = await stage.database()
  ;[browser, gateway] = await Promise.all([startBrowser(), stage.gateway({ ...database.env, DEMO: "true", DATA_DIR: stage.directory() })])
  stage.onEnd(() => browser.close())
  // Half of the answer, then it waits for the test, then the rest.
  const agent = await stage.agent((response) => {
    response.writeHead(200, { "content-type": "text/event-stream" })
    const half = Math.ceil(words.length / 2)
    const rest = (): void => {
      for (const word of words.slice(half)) response.write(event(word))
      response.end("data: [DONE]\n\n")
    }
    for (const word of words.slice(0, half)) response.write(event(word))
    goOn = rest
  })
  const evilAgent = await stage.agent((response) => response.writeHead(200, { "content-type": "text/plain" }).end(evil))
  const owner = await gateway.person()
  ticker = (await gateway.list(owner, agent.url, "0.25")).ticker
  evilTicker = (await gateway.list(owner, evilAgent.url, "0")).ticker
  buyer = await gateway.person("10.00")
  key = await gateway.key(buyer)
}, 60_000)

const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }

const at = async (url: string, options: Parameters<typeof openPage>[2] = {}): Promise<OpenPage> => {
  const opened = await openPage(browser, url, options)
  stage.onEnd(opened.close)
  return opened
}
const ready = async (page: Page, agent: string, token = key): Promise<void> => {
  await page.locator(`#agent option[value="${agent}"]`).waitFor({ state: "attached" })
  await page.getByRole("combobox", { name: "Agent" }).selectOption(agent)
  await page.getByLabel("API key").fill(token)
  await page.getByLabel("API key").blur()
}
const say = async (page: Page, text: string): Promise<void> => {
  await page.getByRole("textbox", { name: "Message" }).fill(text)
  await page.getByRole("textbox", { name: "Message" }).press("Enter")
}
const answer = (page: Page) => page.locator(".theirs").last()

describe("the chat page", () => {
  it("shows the answer as it comes, then what it cost, and the balance moves", async () => {
    const { page, complaints } = await at(`${gateway.url}/chat`)
    await ready(page, ticker)
    await page.getByText("$0.25 a message").last().waitFor()
    await page.getByText("Balance $10.00").waitFor()
    await say(page, "What happens?")
    const half = words.slice(0, Math.ceil(words.length / 2)).join("")
    await page.getByText(half, { exact: false }).last().waitFor()
    expect(await answer(page).textContent()).toBe(half)
    expect(await answer(page).getAttribute("aria-busy")).toBe("true")
    expect(await page.getByRole("button", { name: "Stop" }).isVisible()).toBe(true)
    goOn()
    await page.getByText("$0.25 · $0.25 this session").waitFor()
    expect(await answer(page).textContent()).toBe(words.join(""))
    await page.getByText("Balance $8.75 · $1.00 reserved").waitFor()
    await page.getByRole("button", { name: "Close session" }).click()
    await page.getByText("Session closed. It cost $0.25.").waitFor()
    await page.getByText("Balance $9.75").waitFor()
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Receipt" }).click()])
    expect(download.suggestedFilename()).toMatch(/^receipt-ses_\w+\.pdf$/)
    expect(complaints).toEqual([])
  })

  it("goes on after the connection is cut in the middle of an answer: nothing is lost, doubled, or paid twice", async () => {
    const line = await new TcpCut(gateway.port).listen()
    stage.onEnd(() => line.close())
    const before = await gateway.balance(buyer)
    const { page } = await at(`${line.url}/chat`)
    await ready(page, ticker)
    await say(page, "Again")
    await page.getByText(words[3]!.trim()).last().waitFor()
    line.cut()
    await page.getByText("Connection lost").waitFor()
    await page.getByText("Connected again").waitFor()
    goOn()
    await page.getByText("$0.25 · $0.25 this session").waitFor()
    expect(await answer(page).textContent()).toBe(words.join(""))
    await page.getByRole("button", { name: "Close session" }).click()
    await page.getByText("Session closed").waitFor()
    expect(Number(before.balance_usd) - Number((await gateway.balance(buyer)).balance_usd)).toBeCloseTo(0.25, 6)
  })

  it("goes on where it was when the page is loaded again", async () => {
    const { page } = await at(`${gateway.url}/chat`)
    await ready(page, ticker)
    await say(page, "First")
    await page.getByText(words[3]!.trim()).last().waitFor()
    goOn()
    await page.getByText("$0.25 · $0.25 this session").waitFor()
    await page.reload()
    await page.locator(".mine").getByText("First").waitFor()
    expect(await answer(page).textContent()).toBe(words.join(""))
    await say(page, "Second")
    await page.locator(".theirs").nth(1).filter({ hasText: /./ }).waitFor()
    goOn()
    await page.getByText("$0.25 · $0.50 this session").waitFor()
    await page.getByRole("button", { name: "Close session" }).click()
    await page.getByText("It cost $0.50.").waitFor()
  })

  it("stops an answer by Esc, free of charge", async () => {
    const { page } = await at(`${gateway.url}/chat`)
    await ready(page, ticker)
    await say(page, "Stop me")
    await page.getByText(words[3]!.trim()).last().waitFor()
    await page.keyboard.press("Escape")
    await page.getByText("Stopped. Nothing was charged.").waitFor()
    await page.getByRole("button", { name: "Close session" }).click()
    await page.locator("#close").waitFor({ state: "hidden" })
  })

  it("shows what an agent says as text, never as a page of its own", async () => {
    const { page, complaints } = await at(`${gateway.url}/chat`)
    await ready(page, evilTicker)
    await say(page, evil)
    await page.getByText("$0.00 · $0.00 this session").waitFor()
    expect(await answer(page).textContent()).toBe(evil)
    expect(await page.title()).toBe("Chat · Tollgate")
    expect(complaints).toEqual([])
  })

  it("says what to do about a key that is no good", async () => {
    const { page } = await at(`${gateway.url}/chat`)
    await ready(page, ticker, "autx_live_nobody")
    await page.getByText("The key is not accepted. Paste another one.").waitFor()
  })

  it("takes the demo's key at a press on this machine, and gives it to nobody else", async () => {
    const { page, complaints } = await at(`${gateway.url}/chat`, phone)
    await page.getByRole("button", { name: "Demo’s" }).click()
    await page.getByText("Balance $10.00").waitFor()
    expect(complaints).toEqual([])
    for (const headers of [{}, { origin: "https://evil.example" }, { origin: "http://localhost:1" }, { origin: "http://evil.example", host: "evil.example" }]) {
      const reply = await gateway.call("POST", "/chat/demo-key", { headers })
      expect([headers, reply.status, reply.text.includes("autx_live_")]).toEqual([headers, 404, false])
    }
  })

  for (const colorScheme of ["light", "dark"] as const) {
    it(`is ${colorScheme} where the reader's machine is, and fits a phone without scrolling sideways`, async () => {
      const { page, complaints } = await at(`${gateway.url}/chat`, { ...phone, colorScheme })
      await ready(page, evilTicker)
      await say(page, "x".repeat(300))
      await page.getByText("$0.00 · $0.00 this session").waitFor()
      expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0)
      expect(await page.getByRole("textbox", { name: "Message" }).isVisible()).toBe(true)
      expect(complaints).toEqual([])
      if (process.env["SCREENSHOTS"] !== undefined) await page.screenshot({ path: `${process.env["SCREENSHOTS"]}/chat-${colorScheme}.png` })
    })
  }

  it("leaves the books clean", async () => {
    await expectCleanBooks(database.sql)
  })
})
