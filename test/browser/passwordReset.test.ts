/** The page that a reset letter leads to, as its reader meets it. */
import type { Browser } from "playwright-core"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { openPage, startBrowser } from "../support/browser.ts"
import { type World, makeWorld } from "../support/World.ts"

let browser: Browser
let world: World
beforeAll(async () => {
  [browser, world] = await Promise.all([startBrowser(), makeWorld()])
})
afterAll(() => Promise.all([browser.close(), world.stop()]))

describe("the link of a reset letter", () => {
  it("opens a form that changes the password, once", async () => {
    const person = await world.user()
    const token = await world.link(person, "reset")
    const { page, complaints, close } = await openPage(browser, `${world.url}/password-reset?token=${token}`, {})
    await page.getByLabel("New password").fill("another password")
    await page.getByRole("button").click()
    await page.getByText("Done. Every login of yours has ended").waitFor()
    expect((await world.call("POST", "/v1/auth/login", { body: { email: person.email, password: "another password" } })).status).toBe(200)
    expect(complaints).toEqual([])
    await close()
  })

  it("says what is wrong with a link that is no longer good", async () => {
    const { page, close } = await openPage(browser, `${world.url}/password-reset?token=used-before`, {})
    await page.getByLabel("New password").fill("another password")
    await page.getByRole("button").click()
    await page.getByRole("status").filter({ hasText: "token" }).waitFor()
    await close()
  })
})
