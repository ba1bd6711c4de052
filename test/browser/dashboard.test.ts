/** The dashboard as an admin meets it, in Chromium: the figures are those of the market, and neither the key nor a stranger's name does anything there. */
import { randomUUID } from "node:crypto"
import type { Browser, BrowserContextOptions, Page } from "playwright-core"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type Owner, owner, service } from "../support/acf.ts"
import { type OpenPage, openPage, startBrowser } from "../support/browser.ts"
import { type World, makeWorld } from "../support/World.ts"

const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
/** Would turn around what stands beside it. */
const turned = `\u202Egnp.elif ${"x".repeat(150)}`

let browser: Browser
let world: World
let admin: Owner

/** Two services of one provider: one is called today and the other, which fails now and then, on the days before. */
const makeMarket = async (): Promise<void> => {
  const buyer = await owner(world, { name: evil })
  const provider = await owner(world, { name: turned, role: "provider" })
  const good = await service(world, provider, { name: evil, price: "34.5", paymentMethod: "stripe" })
  const bad = await service(world, provider, { name: "Fails often", price: "0.000001", paymentMethod: "x402" })
  await service(world, provider, { name: "Never called" })
  expect((await buyer.call("GET", `/api/v1/proxy/${good.id}/`)).status).toBe(200)
  const day = (ago: number) => new Date(Date.now() - ago * 86_400_000)
  for (const [ago, calls] of [[1, 60], [2, 25], [5, 100], [7, 1000]] as const) {
    await world.sql`insert into usage_daily_by_agent (day, agent_id, calls, succeeded, errors, cost, latency_ms) values (${day(ago)}, ${bad.id}, ${calls}, ${calls - 10}, 10, ${calls * 1_000_000}, ${calls * 80})`
    await world.sql`insert into usage_daily_by_account (day, account_id, calls, succeeded, errors, cost, recorded, latency_ms) values (${day(ago)}, ${buyer.accountId}, ${calls}, ${calls - 10}, 10, ${calls * 1_000_000}, 0, ${calls * 80})`
  }
  await world.sql`insert into agent_totals (agent_id, calls, cost, succeeded, errors, latency_ms, first_at, last_at) values (${bad.id}, 1185, 1185000000, 1145, 40, 94800, ${day(7)}, ${day(1)})`
}

beforeAll(async () => {
  [browser, world] = await Promise.all([startBrowser(), makeWorld()])
  admin = await owner(world, { role: "admin" })
  await makeMarket()
})
afterAll(() => Promise.all([browser.close(), world.stop()]))

const opened: Array<OpenPage> = []
afterEach(async () => {
  for (const { close } of opened.splice(0)) await close()
})
const open = async (path: string, options: BrowserContextOptions = {}): Promise<OpenPage> => {
  const page = await openPage(browser, world.url + path, options)
  opened.push(page)
  return page
}
const withKey = (key = admin.token): string => `/admin/dashboard?key=${encodeURIComponent(key)}`
const phone = { viewport: { width: 375, height: 812 }, isMobile: true, hasTouch: true }
/** Waits until both charts are drawn, and tells what share of each canvas is not empty. */
const drawn = async (page: Page): Promise<ReadonlyArray<number>> => {
  await page.locator("#revenue canvas").waitFor()
  return page.locator(".plot canvas").evaluateAll((all) => (all as unknown as ReadonlyArray<{ readonly width: number; readonly height: number; readonly getContext: (name: string) => any }>).map((canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
    return data.filter((value: number, index: number) => index % 4 === 3 && value > 0).length / (canvas.width * canvas.height)
  }))
}
const tile = (page: Page, label: string) => page.locator(".tiles > div", { hasText: label }).locator("dd").innerText()

describe("the dashboard", () => {
  it("shows the market's figures, the same that the API tells", async () => {
    const { page, complaints } = await open(withKey())
    const { json: stats } = await admin.call("GET", "/api/v1/admin/stats")
    expect(await Promise.all(["Services", "Agents", "Teams", "Calls", "Settlements", "Webhooks", "Revenue"].map((label) => tile(page, label))))
      .toEqual([...[stats.total_services, stats.total_agents, stats.total_teams, stats.total_usage_records, stats.total_settlements, stats.active_webhooks].map((value) => value.toLocaleString("en-US")), "$1,219.50"])
    expect(stats.total_revenue_usd).toBe(1219.5)
    const days = await page.locator("#days tbody tr").evaluateAll((rows) => rows.map((row) => [row.dataset["calls"], row.dataset["revenue"]]))
    expect(days).toEqual([["0", "0.00"], ["100", "100.00"], ["0", "0.00"], ["0", "0.00"], ["25", "25.00"], ["60", "60.00"], ["1", "34.50"]])
    expect(await page.locator("#calls output").innerText()).toBe("186")
    expect(await page.locator("#revenue output").innerText()).toBe("$219.50")
    const health = await page.locator("section", { hasText: "Service health" }).locator("tbody tr").allInnerTexts()
    expect(health.map((row) => row.replace(/\s+/g, " "))).toEqual([
      expect.stringMatching(/^Fails often .* called 1 d ago 3\.4 % 80 ms$/), expect.stringMatching(/called just now 0\.0 % \d+ ms$/), expect.stringMatching(/^Never called .* never called – –$/)
    ])
    expect(await page.locator("section", { hasText: "Payment methods" }).locator("tbody tr").allInnerTexts()).toEqual([expect.stringMatching(/^x402\s+1,185\s+\$1,185\.00$/), expect.stringMatching(/^stripe\s+1\s+\$34\.50$/)])
    expect(complaints).toEqual([])
  })

  for (const colorScheme of ["light", "dark"] as const) {
    for (const [device, options] of [["a desk", { viewport: { width: 1280, height: 900 } }], ["a phone", phone]] as const) {
      it(`is ${colorScheme} where the reader's machine is, and fits ${device}, with charts of its own colours`, async () => {
        const { page, complaints } = await open(withKey(), { ...options, colorScheme })
        for (const share of await drawn(page)) expect(share).toBeGreaterThan(0.02)
        expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0)
        const ground = await page.evaluate<number>(`getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((sum, value) => sum + value, 0) / 765`)
        expect(colorScheme === "light" ? ground > 0.9 : ground < 0.15, String(ground)).toBe(true)
        expect(complaints).toEqual([])
        if (process.env["SCREENSHOTS"] !== undefined) await page.screenshot({ path: `${process.env["SCREENSHOTS"]}/dashboard-${device.replace("a ", "")}-${colorScheme}.png`, fullPage: true })
      })
    }
  }

  it("tells the day's figures where the reader points, in both charts, and draws them anew for another width", async () => {
    const { page, complaints } = await open(withKey(), { viewport: { width: 1280, height: 900 } })
    await drawn(page)
    const chart = (await page.locator("#calls .u-over").boundingBox())!
    await page.mouse.move(chart.x + chart.width * 1.5 / 7, chart.y + chart.height / 2)
    await page.locator("#calls output", { hasText: /: 100$/ }).waitFor()
    await page.locator("#revenue output", { hasText: /: \$100\.00$/ }).waitFor()
    await page.mouse.move(chart.x, chart.y - 100)
    await page.locator("#calls output", { hasText: /^186$/ }).waitFor()
    await page.setViewportSize({ width: 375, height: 812 })
    await page.waitForFunction("document.querySelector('#calls canvas').getBoundingClientRect().width < 375")
    expect(await page.evaluate("document.documentElement.scrollWidth - innerWidth")).toBe(0)
    expect(complaints).toEqual([])
  })

  it("shows strangers' names as text, kept to their place", async () => {
    const { page, complaints } = await open(withKey(), phone)
    await drawn(page)
    expect(await page.title()).toBe("Dashboard · Tollgate")
    expect(await page.locator("main img").count()).toBe(1)
    expect(await page.locator("th bdi", { hasText: "<img src=x" }).first().innerText()).toBe(evil)
    const heights = await page.locator("th", { hasText: turned }).evaluateAll((cells) => cells.map((cell) => cell.clientHeight))
    expect([heights.length, Math.max(...heights) < 120]).toEqual([4, true])
    expect(complaints).toEqual([])
  })

  it("shows everything but the charts without its script", async () => {
    const { page } = await open(withKey(), { javaScriptEnabled: false })
    expect(await tile(page, "Calls")).toBe("1,186")
    await page.getByText("The days as a table").click()
    expect(await page.locator("#days tbody tr").last().innerText()).toMatch(/1\s+\$34\.50\s+1$/)
    expect(await page.locator(".plot").first().isVisible()).toBe(false)
  })
})

describe("the key", () => {
  it("is gone from the address and the history, and the session is out of the page's reach", async () => {
    const { page, complaints } = await open(withKey())
    expect([page.url(), await page.evaluate("history.length")]).toEqual([`${world.url}/admin/dashboard`, 2])
    await page.reload()
    expect(await page.title()).toBe("Dashboard · Tollgate")
    expect(await page.getByRole("heading", { level: 1 }).innerText()).toBe("Dashboard")
    expect(await page.evaluate("document.cookie + document.documentElement.outerHTML")).not.toContain("tollgate_admin")
    expect(await page.evaluate("document.documentElement.outerHTML")).not.toContain(admin.keyId)
    expect(complaints).toEqual([])
  })

  it("is asked for, and can be pasted, also after a wrong one", async () => {
    const { page, complaints } = await open("/acf/admin/dashboard")
    const asked: Array<string> = []
    page.on("request", (request) => asked.push(request.url()))
    await page.getByLabel("An admin’s API key").fill(`${admin.keyId}:sec_wrong “key”`)
    await page.getByRole("button", { name: "Open" }).click()
    await page.getByRole("alert").filter({ hasText: "Invalid API key" }).waitFor()
    await page.getByLabel("An admin’s API key").fill(` ${admin.token}\n`)
    await page.getByRole("button", { name: "Open" }).click()
    await page.locator(".tiles").waitFor()
    expect(page.url()).toBe(`${world.url}/acf/admin/dashboard`)
    expect(asked.filter((url) => url.includes("sec_") || url.includes(admin.keyId))).toEqual([])
    expect(complaints.filter((complaint) => !complaint.includes("401"))).toEqual([])
  })

  it("is not asked for again by a link from another site, which comes without the cookie", async () => {
    const { page } = await open(withKey())
    const elsewhere = `http://${randomUUID()}.test/`
    await page.context().route(elsewhere, (route) => route.fulfill({ contentType: "text/html", body: `<a href="${world.url}/admin/dashboard">look</a>` }))
    await page.goto(elsewhere)
    const statuses: Array<number> = []
    page.on("response", (response) => { if (response.url().endsWith("/admin/dashboard")) statuses.push(response.status()) })
    await page.getByText("look").click()
    await page.locator(".tiles").waitFor()
    expect(statuses).toEqual([401, 200, 200])
  })

  it("opens nothing any more once it is revoked, and the page says so", async () => {
    const other = await owner(world, { role: "admin" })
    const { page } = await open(withKey(other.token))
    expect((await other.call("DELETE", `/api/v1/provider/keys/${other.keyId}`)).status).toBe(200)
    await page.getByRole("link", { name: "Refresh" }).click()
    await page.getByRole("alert").filter({ hasText: "Invalid API key" }).waitFor()
    expect(await page.locator(".tiles").count()).toBe(0)
  })
})
