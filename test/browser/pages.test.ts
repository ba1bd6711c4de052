/** The gateway's own pages as people meet them, in Chromium: each must load whole, stay within its own policy, and ask nobody else for anything. */
import type { Browser } from "playwright-core"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type OpenPage, openPage, startBrowser } from "../support/browser.ts"
import { type World, makeWorld } from "../support/World.ts"

let browser: Browser
let world: World
beforeAll(async () => {
  [browser, world] = await Promise.all([startBrowser(), makeWorld({ settings: { demo: true } })])
})
afterAll(() => Promise.all([browser.close(), world.stop()]))

const opened: Array<OpenPage> = []
afterEach(async () => {
  for (const { close } of opened.splice(0)) await close()
})
const open = async (path: string, options: Parameters<typeof openPage>[2] = {}): Promise<OpenPage> => {
  const page = await openPage(browser, world.url + path, options)
  opened.push(page)
  return page
}

const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }
/** From 0, black, to 1, white. */
const lightness = `(() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)
  return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255
})()`

describe("the index page", () => {
  it("says what this is and that it is ready, and loads without a complaint", async () => {
    const { page, complaints } = await open("/")
    expect(await page.title()).toBe("Tollgate")
    expect(await page.getByRole("heading", { level: 1 }).innerText()).toBe("Tollgate")
    expect(await page.getByRole("status").innerText()).toMatch(/^Ready\s+version \d/)
    expect(await page.locator("h1 img").evaluate((image) => (image as unknown as { readonly naturalWidth: number }).naturalWidth)).toBeGreaterThan(0)
    expect(complaints).toEqual([])
  })

  it("has links that all lead somewhere", async () => {
    const { page } = await open("/")
    const links = await page.locator("a").evaluateAll((all) => all.map((link) => link.getAttribute("href")!))
    expect(links).toEqual(expect.arrayContaining(["/docs", "/docs?dialect=autx", "/autx/openapi.json", "/ready", "/health", "/metrics"]))
    for (const link of links) expect([link, (await world.call("GET", link)).status]).toEqual([link, 200])
  })

  for (const colorScheme of ["light", "dark"] as const) {
    it(`is ${colorScheme} where the reader's machine is, and fits a phone without scrolling sideways`, async () => {
      const { page, complaints } = await open("/", { ...phone, colorScheme })
      expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0)
      const ground = await page.evaluate<number>(lightness)
      expect(colorScheme === "light" ? ground > 0.9 : ground < 0.15, String(ground)).toBe(true)
      expect(complaints).toEqual([])
    })
  }

  it("copies a command as it stands", async () => {
    const { page } = await open("/", { permissions: ["clipboard-read", "clipboard-write"] })
    const second = page.locator("li").nth(1)
    await second.getByRole("button", { name: "Copy" }).click()
    await second.getByRole("button", { name: "Copied" }).waitFor()
    const copied = await page.evaluate<string>("navigator.clipboard.readText()")
    expect(copied).toBe(await second.locator("pre").textContent())
    expect(copied).toContain(`curl -i ${world.publicUrl}/v1/proxy/ECHO`)
  })

  it("shows everything but the copy buttons without its script", async () => {
    const { page } = await open("/", { javaScriptEnabled: false })
    expect(await page.locator("pre").count()).toBe(4)
    expect(await page.getByRole("status").innerText()).toMatch(/^Ready/)
    expect(await page.getByRole("button").count()).toBe(0)
  })

  it("notices while it is open that the gateway is no longer ready", async () => {
    const { page } = await open("/")
    await page.route("**/ready", (route) => route.fulfill({ status: 503, json: { ready: false, reasons: ["draining"] } }))
    await page.evaluate(`document.dispatchEvent(new Event("visibilitychange"))`)
    await page.getByText("draining").waitFor()
    expect(await page.getByRole("status").innerText()).toMatch(/^Not ready\s+draining/)
    await page.unroute("**/ready")
    await page.route("**/ready", (route) => route.abort())
    await page.evaluate(`document.dispatchEvent(new Event("visibilitychange"))`)
    await page.getByText("the gateway does not answer").waitFor()
  })

  it("runs no script that is not its own file, and a breach would be noticed here", async () => {
    const { page, complaints } = await open("/")
    await page.evaluate(`{ const script = document.createElement("script"); script.textContent = "window.ran = true"; document.body.append(script) }`)
    expect(await page.evaluate("window.ran")).toBeUndefined()
    await expect.poll(() => complaints).toContainEqual(expect.stringContaining("violation of script-src"))
  })
})

/** Swagger UI is a megabyte of script, read anew by each test's empty profile. */
describe("the documentation", { timeout: 60_000 }, () => {
  const operations = async (): Promise<number> => {
    const { json } = await world.call("GET", "/autx/openapi.json")
    return Object.values<object>(json.paths).reduce((sum, path) => sum + Object.keys(path).length, 0)
  }

  for (const [colorScheme, where, device] of [["light", "a desk", {}], ["dark", "a phone", phone]] as const) {
    it(`lists every operation, ${colorScheme} where the reader's machine is, on ${where}, without a complaint`, async () => {
      const { page, complaints } = await open("/docs", { colorScheme, ...device })
      await page.locator(".opblock").first().waitFor()
      expect(await page.locator(".opblock").count()).toBe(await operations())
      expect(await page.getByRole("button", { name: "Authorize" }).isVisible()).toBe(true)
      expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0)
      const ground = await page.evaluate<number>(lightness)
      expect(colorScheme === "light" ? ground > 0.9 : ground < 0.15, String(ground)).toBe(true)
      expect(complaints).toEqual([])
    })
  }

  it("tries an operation out with a key that the reader gives", async () => {
    const user = await world.user()
    await user.fund("12.5")
    const { key } = await user.key()
    const { page, complaints } = await open("/docs?dialect=autx#/Credits/autx.credits.balance")
    await page.getByRole("button", { name: "Authorize" }).click()
    await page.locator(".auth-container input").fill(key)
    await page.locator(".auth-container button[type=submit]").click()
    await page.locator(".close-modal").click()
    const operation = page.locator(".opblock", { hasText: "/credits/balance" })
    await operation.getByRole("button", { name: "Try it out" }).click()
    await operation.getByRole("button", { name: "Execute" }).click()
    const answer = operation.locator(".live-responses-table .response")
    await answer.waitFor()
    expect(await answer.locator(".response-col_status").innerText()).toMatch(/^200/)
    expect(await answer.innerText()).toContain(`"balance_usd": "12.50"`)
    expect(complaints).toEqual([])
  })

  it("shows a dialect of ours whatever the address asks for", async () => {
    const { page, complaints } = await open("/docs?dialect=//evil.example/x")
    await page.locator(".opblock").first().waitFor()
    expect(await page.locator("nav a[aria-current]").innerText()).toBe("autx")
    expect(complaints).toEqual([])
  })
})
