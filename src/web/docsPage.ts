/**
 * The page at `/docs`: Swagger UI over the dialects' own OpenAPI documents. Its
 * assets come from the installed package through this gateway, nothing from a
 * CDN; the one script of our own is `docsScript`.
 */
import type { Page } from "./indexPage.ts"
import { escapeHtml } from "./indexPage.ts"

/** Swagger UI sets style attributes and draws icons from `data:` URLs. */
const contentSecurityPolicy = [
  "default-src 'none'", "script-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data:", "connect-src 'self'",
  "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
].join("; ")

/** The dialect comes from the query, and only if the page lists it. */
export const docsScript = `const links = [...document.querySelectorAll("nav a[data-dialect]")]
const wanted = new URLSearchParams(location.search).get("dialect")
const link = links.find((candidate) => candidate.dataset.dialect === wanted) ?? links[0]
if (link) {
  link.setAttribute("aria-current", "page")
  SwaggerUIBundle({ url: "/" + encodeURIComponent(link.dataset.dialect) + "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null })
}
`

export const docsStyle = `body { margin: 0; background: #fff; }
nav { font: 1rem system-ui, sans-serif; padding: .8rem 1.2rem; border-bottom: 1px solid #8884; }
nav a { margin-right: 1rem; color: #14508c; } nav a[aria-current] { font-weight: 600; text-decoration: none; }
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
<link rel="icon" href="/docs/favicon-32x32.png">
</head>
<body>
<nav><a href="/">Tollgate</a>${dialects.map(({ name, title }) =>
    `<a data-dialect="${escapeHtml(name)}" href="/docs?dialect=${encodeURIComponent(name)}">${escapeHtml(title)}</a>`).join("")}</nav>
<div id="docs"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/docs.js"></script>
</body>
</html>
`
})
