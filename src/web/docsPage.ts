/**
 * The page at `/docs`: Swagger UI over the dialects' own OpenAPI documents. Its
 * assets come from the installed package through this gateway, nothing from a
 * CDN; the one script of our own is `docsScript`.
 */
import { escapeHtml, type Page } from "./page.ts"

/** Swagger UI sets style attributes and draws icons from `data:` URLs. */
const contentSecurityPolicy = [
  "default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:", "connect-src 'self'",
  "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
].join("; ")

/** The dialect comes from the query or the host's first label, and only if the page lists it. Swagger UI is dark by a class of the document. */
export const docsScript = `const dark = matchMedia("(prefers-color-scheme: dark)")
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches)
dark.addEventListener("change", paint)
paint()

const links = [...document.querySelectorAll("nav a[data-dialect]")]
const wanted = new URLSearchParams(location.search).get("dialect")
const of = (name) => links.find((candidate) => candidate.dataset.dialect === name)
const link = of(wanted) ?? of(location.hostname.split(".")[0]) ?? links[0]
if (link) {
  link.setAttribute("aria-current", "page")
  SwaggerUIBundle({ url: "/" + encodeURIComponent(link.dataset.dialect) + "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null })
}
`

export const docsStyle = `:root { color-scheme: light dark; --ground: #fff; --ink: #1f2430; --line: #e4dfd4; --link: #0b5d8a; }
@media (prefers-color-scheme: dark) { :root { --ground: #1c2022; --ink: #e9e6df; --line: #3a4046; --link: #79bfe8; } }
body { margin: 0; background: var(--ground); }
nav { display: flex; flex-wrap: wrap; align-items: center; gap: .3rem 1.25rem; padding: .8rem 1.25rem; border-bottom: 1px solid var(--line); font: 1rem/1.6 system-ui, sans-serif; }
nav a { color: var(--link); }
nav a:first-child { display: flex; align-items: center; gap: .5rem; color: var(--ink); font-weight: 700; text-decoration: none; }
nav img { width: 1.5rem; height: 1.5rem; }
nav a[aria-current] { color: var(--ink); text-decoration: none; }
`

export const docsPage = (dialects: ReadonlyArray<{ readonly name: string; readonly title: string }>): Page => ({
  contentSecurityPolicy,
  html: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Documentation · Tollgate</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/docs.css">
<link rel="icon" href="/icon.svg" type="image/svg+xml">
</head>
<body>
<nav><a href="/"><img src="/icon.svg" alt="" width="24" height="24">Tollgate</a>${dialects.map(({ name, title }) =>
    `<a data-dialect="${escapeHtml(name)}" href="/docs?dialect=${encodeURIComponent(name)}">${escapeHtml(title)}</a>`).join("")}</nav>
<div id="docs"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/docs.js"></script>
</body>
</html>
`
})
