/**
 * The gateway's own routes, in no dialect: index page, chat page, health,
 * readiness, metrics, OpenAPI documents and their viewer. They need no credential
 * and touch no store, so they answer when nothing else does; what can't change is
 * rendered once. Only the demo's key is a secret: see `demoKey`.
 */
import { existsSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import type { Settings } from "../config.ts"
import type { Readiness } from "../kernel/Readiness.ts"
import type { Header } from "../kernel/Relay.ts"
import { registry } from "../telemetry/Metrics.ts"
import { chatPage } from "../web/chatPage.ts"
import { chatScript } from "../web/chatScript.ts"
import { doorScript } from "../web/dashboardDoor.ts"
import { chartScript, uPlotScript } from "../web/dashboardScript.ts"
import { docsPage, docsScript, docsStyle } from "../web/docsPage.ts"
import { icon } from "../web/icon.ts"
import { indexPage } from "../web/indexPage.ts"
import { indexScript } from "../web/indexScript.ts"
import type { Page } from "../web/page.ts"
import { resetPage, resetScript } from "../web/resetPage.ts"
import type { Dialect } from "./dialect.ts"
import type { Exchange } from "./Exchange.ts"
import { openApiOf } from "./openapi.ts"
import { RowMeter } from "./rows/RowMeter.ts"
import type { Target } from "./rows/Target.ts"
import type { RouteEntry } from "./router.ts"

export interface PagesParts {
  readonly settings: Settings
  readonly dialects: ReadonlyArray<Dialect>
  readonly version: string
  readonly readiness: Readiness["Service"]
  readonly isDraining: () => boolean
  /** Hands counts kept by the edge to the metrics, just before they are read. */
  readonly flush: () => void
}

type Answer = (exchange: Exchange) => void

const page = (id: string, path: string, answer: Answer, method: "GET" | "POST" = "GET"): RouteEntry<Target> => ({
  method,
  path,
  target: { dialect: undefined, meter: new RowMeter(`page.${id}`), serve: answer }
})

/** Beside the program, where the build put it. */
const sdkForBrowsers = new URL("./chatClient.js", import.meta.url)

const loopbackHost = /^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$/

/**
 * The demo's key, for the gateway's own page in a browser on this machine and for nobody else. A page of another origin
 * names that origin; one whose name was bent to this machine (DNS rebinding) names a host that is not loopback.
 */
const demoKey = ({ demo, dataDir }: Settings): Answer => (exchange) => {
  const { host, origin } = exchange.head
  const file = join(dataDir, "demo.json")
  if (!demo || !loopbackHost.test(host) || origin !== `http://${host}` || !existsSync(file)) return exchange.sendRendered({ status: 404, body: { detail: "There is nothing at this path" } })
  const { api_key } = JSON.parse(readFileSync(file, "utf8")) as { readonly api_key: string }
  exchange.sendRendered({ status: 200, headers: [["cache-control", "no-store"]], body: { api_key } })
}

const nosniff: Header = ["x-content-type-options", "nosniff"]

const sendPage = (exchange: Exchange, { html, contentSecurityPolicy }: Page): void => exchange.send(200, [
  ["content-type", "text/html; charset=utf-8"], ["content-security-policy", contentSecurityPolicy], ["referrer-policy", "no-referrer"],
  ["cache-control", "no-cache"], nosniff
], html)

const fixed = (contentType: string, body: () => string | Uint8Array): Answer => {
  const headers: ReadonlyArray<Header> = [["content-type", contentType], ["cache-control", "public, max-age=3600"], nosniff]
  let rendered: string | Uint8Array | undefined
  return (exchange) => exchange.send(200, headers, rendered ??= body())
}

const assets: ReadonlyArray<readonly [file: string, contentType: string]> = [
  ["swagger-ui.css", "text/css; charset=utf-8"],
  ["swagger-ui-bundle.js", "text/javascript; charset=utf-8"]
]

const viewer = (dialects: ReadonlyArray<Dialect>): ReadonlyArray<RouteEntry<Target>> => {
  const folder = dirname(createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"))
  const docs = docsPage(dialects)
  return [
    page("docs", "/docs", (exchange) => sendPage(exchange, docs)),
    page("docs_script", "/docs/docs.js", fixed("text/javascript; charset=utf-8", () => docsScript)),
    page("docs_style", "/docs/docs.css", fixed("text/css; charset=utf-8", () => docsStyle)),
    ...assets.map(([file, contentType]) => page("docs_asset", `/docs/${file}`, fixed(contentType, () => readFileSync(join(folder, file)))))
  ]
}

export const pagesOf = ({ settings, dialects, version, readiness, isDraining, flush }: PagesParts): ReadonlyArray<RouteEntry<Target>> => {
  const readinessNow = () => {
    const { ready, reasons } = readiness.check()
    return isDraining() ? { ready: false, reasons: ["draining", ...reasons] } : { ready, reasons }
  }
  const ready: Answer = (exchange) => {
    const now = readinessNow()
    exchange.sendRendered({ status: now.ready ? 200 : 503, body: now })
  }
  const chat = chatPage(settings.demo)
  const facts = { publicUrl: settings.publicUrl, demo: settings.demo, version, dialects }
  const metrics: Answer = (exchange) => {
    flush()
    registry.metrics().then(
      (text) => exchange.send(200, [["content-type", registry.contentType], ["cache-control", "no-store"]], text),
      (error) => exchange.defect(error)
    )
  }
  return [
    page("index", "/", (exchange) => sendPage(exchange, indexPage(facts, readinessNow()))),
    page("index_script", "/index.js", fixed("text/javascript; charset=utf-8", () => indexScript)),
    page("reset", "/password-reset", (exchange) => sendPage(exchange, resetPage)),
    page("reset_script", "/password-reset.js", fixed("text/javascript; charset=utf-8", () => resetScript)),
    page("chat", "/chat", (exchange) => sendPage(exchange, chat)),
    page("chat_script", "/chat/chat.js", fixed("text/javascript; charset=utf-8", () => chatScript)),
    page("chat_client", "/chat/client.js", fixed("text/javascript; charset=utf-8", () => readFileSync(sdkForBrowsers))),
    page("chat_demo_key", "/chat/demo-key", demoKey(settings), "POST"),
    page("dashboard_door", "/dashboard/door.js", fixed("text/javascript; charset=utf-8", () => doorScript)),
    page("dashboard_chart", "/dashboard/chart.js", fixed("text/javascript; charset=utf-8", () => chartScript)),
    page("dashboard_uplot", "/dashboard/uplot.js", fixed("text/javascript; charset=utf-8", uPlotScript)),
    page("icon", "/icon.svg", fixed("image/svg+xml", () => icon)),
    page("health", "/health", (exchange) => exchange.sendRendered({ status: 200, body: { status: "ok" } })),
    page("ready", "/ready", ready),
    page("metrics", "/metrics", metrics),
    ...dialects.map((dialect) => page("openapi", `/${dialect.name}/openapi.json`, fixed("application/json", () => JSON.stringify(openApiOf(dialect, version))))),
    ...dialects.map(({ name }) => page("docs", `/${name}/docs`, (exchange) => exchange.send(302, [["location", `/docs?dialect=${name}`]], ""))),
    ...viewer(dialects)
  ]
}
