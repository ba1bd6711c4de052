/**
 * The page at `/`: whether this gateway is ready, how to try it, what it speaks
 * and where to look next. It loads nothing from anywhere else, and all but the
 * copy buttons work without its script. Dialect texts are escaped; the rest is
 * written here.
 */
import type { Readiness } from "../kernel/Readiness.ts"
import { indexStyle } from "./indexStyle.ts"
import { escapeHtml, type Page, pageOf } from "./page.ts"

export interface IndexFacts {
  readonly publicUrl: string
  readonly demo: boolean
  readonly version: string
  readonly dialects: ReadonlyArray<{ readonly name: string; readonly title: string; readonly description: string; readonly mounts: ReadonlyArray<string> }>
}

/** What `/ready` says. */
type Checked = ReturnType<Readiness["Service"]["check"]>

/** Backticks in a dialect's description are code, as in Markdown. */
const prose = (text: string): string => escapeHtml(text).replace(/`([^`]+)`/g, "<code>$1</code>")

const dialectCard = ({ name, title, description, mounts }: IndexFacts["dialects"][number]): string => `
<section class="card">
<h3>${escapeHtml(title)}</h3>
<p>${prose(description)}</p>
<p class="soft">At ${mounts.map((mount) => `<code>${escapeHtml(mount)}</code>`).join(" ")}</p>
<p class="links"><a href="/docs?dialect=${encodeURIComponent(name)}">Documentation</a><a href="/${encodeURIComponent(name)}/openapi.json">OpenAPI</a></p>
</section>`

const step = (text: string, ...commands: ReadonlyArray<string>): string => `
<li>
<div><p>${text}</p><button type="button" hidden>Copy</button></div>
<pre tabindex="0">${escapeHtml(commands.join("\n"))}</pre>
</li>`

const curl = (url: string, ...options: ReadonlyArray<string>): string => [`curl ${url}`, ...options].join(" \\\n  ")

const key = `-H "Authorization: Bearer $KEY"`
const json = `-H "Content-Type: application/json"`

/** `ECHO` and `SUMM` are the demo's agents. */
const demoSteps = (publicUrl: string): string => `
<h2>Try it</h2>
<ol>${[
  step("Take the demo’s API key from the data directory.",
    `KEY=$(node -p "require('./.data/demo.json').api_key")`),
  step("Call a free agent: checked, counted and passed on.",
    curl(`-i ${publicUrl}/v1/proxy/ECHO`, key, json, `-d '{"prompt":"hello"}'`)),
  step("Order from a paid agent, for one cent.",
    curl(`${publicUrl}/v1/orders/`, key, json, `-d '{"agent_id":"SUMM","prompt":"Calls come in. Each is paid. None is lost."}'`)),
  step("See what it cost.",
    curl(`${publicUrl}/v1/credits/balance`, key), curl(`${publicUrl}/v1/credits/transactions`, key))
].join("")}
</ol>`

const statusLine = ({ ready, reasons }: Checked, version: string): string =>
  `<p class="status" role="status" data-ready="${ready}"><b class="yes">Ready</b><b class="not">Not ready</b><span class="not reasons">${escapeHtml(reasons.join(", "))}</span><span>version ${escapeHtml(version)}</span></p>`

const nodeRows: ReadonlyArray<readonly [path: string, text: string]> = [
  ["/chat", "Talk to an agent, and watch what it costs"],
  ["/docs", "Every operation, to read and to try"],
  ["/ready", "Whether it takes calls now, and if not, why"],
  ["/health", "Whether the process answers at all"],
  ["/metrics", "Figures for Prometheus"]
]

export const indexPage = ({ publicUrl, demo, version, dialects }: IndexFacts, readiness: Checked): Page => pageOf({
  title: "Tollgate",
  style: indexStyle,
  script: "/index.js",
  body: `<header>
<h1><img src="/icon.svg" alt="" width="40" height="40">Tollgate</h1>
<p class="lead">A gateway for paid AI agents. It authenticates, limits, forwards and accounts for every call.</p>
${statusLine(readiness, version)}
</header>
${demo ? demoSteps(publicUrl) : ""}
<h2>Interfaces</h2>
<div class="cards">${dialects.map(dialectCard).join("")}
</div>
<h2>This gateway</h2>
<table>
${nodeRows.map(([path, text]) => `<tr><th scope="row"><a href="${path}"><code>${path}</code></a></th><td class="soft">${text}</td></tr>`).join("\n")}
</table>`
})
