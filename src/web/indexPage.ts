/**
 * The page at `/`: what runs here and where to look. Plain HTML with its style
 * inside, no script, nothing loaded from anywhere. Dialect texts are escaped; the
 * rest is written here.
 */
import { createHash } from "node:crypto"

export interface IndexFacts {
  readonly publicUrl: string
  readonly demo: boolean
  readonly dialects: ReadonlyArray<{ readonly name: string; readonly title: string; readonly description: string; readonly mounts: ReadonlyArray<string> }>
}

export interface Page {
  readonly html: string
  readonly contentSecurityPolicy: string
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" }

export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character]!)

const style = `
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 1rem/1.55 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
section.dialect { border: 1px solid var(--line); border-radius: .6rem; padding: .2rem 1rem .8rem; margin: 1rem 0; }
h3 { margin: .6rem 0 .2rem; } p { margin: .4rem 0; }
nav a { display: inline-block; margin-right: 1rem; padding: .25rem 0; }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto; }
`

const contentSecurityPolicy = [
  "default-src 'none'", `style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'`,
  "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
].join("; ")

const dialectSection = ({ name, title, description, mounts }: IndexFacts["dialects"][number]): string => `
<section class="dialect">
<h3>${escapeHtml(title)}</h3>
<p>${escapeHtml(description)}</p>
<p>At ${mounts.map((mount) => `<code>${escapeHtml(mount)}</code>`).join(", ")}</p>
<nav><a href="/docs?dialect=${encodeURIComponent(name)}">Documentation</a><a href="/${encodeURIComponent(name)}/openapi.json">OpenAPI</a></nav>
</section>`

const demoSection = (publicUrl: string): string => `
<h2>Try it</h2>
<p>A demo runs here. Its API key is <code>api_key</code> in <code>demo.json</code>, in the data directory; put it in <code>$KEY</code> and a ticker of the first answer in <code>$TICKER</code>.</p>
<pre>${escapeHtml([
  `curl ${publicUrl}/v1/agents/`,
  `curl ${publicUrl}/v1/proxy/$TICKER -H "authorization: Bearer $KEY" -H "content-type: application/json" -d '{"prompt":"hello"}'`,
  `curl ${publicUrl}/v1/credits/balance -H "authorization: Bearer $KEY"`
].join("\n"))}</pre>`

export const indexPage = ({ publicUrl, demo, dialects }: IndexFacts): Page => ({
  contentSecurityPolicy,
  html: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tollgate</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>Tollgate</h1>
<p>A gateway for paid AI agents. It authenticates, limits, forwards and accounts for every call; balances, keys and agents are the same whichever interface you speak.</p>
<h2>Interfaces</h2>${dialects.map(dialectSection).join("")}
${demo ? demoSection(publicUrl) : ""}
<h2>This node</h2>
<nav><a href="/health">Health</a><a href="/ready">Readiness</a><a href="/metrics">Metrics</a><a href="/docs">Documentation</a></nav>
</main>
</body>
</html>
`
})
