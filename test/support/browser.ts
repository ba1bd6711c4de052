/**
 * A real browser for the tests of our pages: Debian's Chromium, the installed
 * one, or unpacked into .cache; where neither is possible the test fails, it is
 * never skipped. It starts with an empty profile and calls nobody on its own.
 *
 * A page opened here notes everything that must not happen: errors on its
 * console, violations of its content security policy, and requests that leave
 * the gateway's origin (those are cut off).
 */
import { existsSync } from "node:fs"
import { join } from "node:path"
import { type Browser, type BrowserContextOptions, type Page, chromium } from "playwright-core"
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"

const installed = "/usr/bin/chromium"

const args = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"
]

export const startBrowser = async (): Promise<Browser> => {
  if (existsSync(installed)) return chromium.launch({ executablePath: installed, args })
  const { root, libraryPath } = await unpackDebian("chromium")
  const ownFonts = existsSync(join(root, "etc/fonts/fonts.conf"))
  return chromium.launch({
    executablePath: join(root, "usr/lib/chromium/chromium"),
    args,
    env: { ...process.env as Record<string, string>, LD_LIBRARY_PATH: libraryPath, ...(ownFonts ? { FONTCONFIG_SYSROOT: root } : {}) }
  })
}

export interface OpenPage {
  readonly page: Page
  /** What went wrong so far, in words. */
  readonly complaints: ReadonlyArray<string>
  readonly close: () => Promise<void>
}

/** Runs in the page. */
const violations = `document.addEventListener("securitypolicyviolation", (event) => console.error("violation of " + event.effectiveDirective + " by " + event.blockedURI))`

/** Opens a path of the gateway and waits until it is loaded. */
export const openPage = async (browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<OpenPage> => {
  const { origin } = new URL(url)
  const context = await browser.newContext(options)
  const complaints: Array<string> = []
  await context.route((target) => target.origin !== origin && target.protocol !== "data:", (route) => {
    complaints.push(`request to ${route.request().url()}`)
    return route.abort()
  })
  const page = await context.newPage()
  page.on("pageerror", (error) => complaints.push(`error ${error.message}`))
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.push(`console ${message.text()}`)
  })
  page.on("response", (response) => {
    if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`)
  })
  await page.addInitScript({ content: violations })
  await page.goto(url, { waitUntil: "load" })
  return { page, complaints, close: () => context.close() }
}
