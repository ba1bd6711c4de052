/** What every page of ours is: its text, and the policy that says what it may load and do. */
import { createHash } from "node:crypto"

export interface Page {
  readonly html: string
  readonly contentSecurityPolicy: string
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" }

export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character]!)

/** The head is the same for all: `style` is inlined and is all the style the page may have, `script` a path of ours. */
export const pageOf = ({ title, style, script, body }: { readonly title: string; readonly style: string; readonly script: string; readonly body: string }): Page => ({
  contentSecurityPolicy: [
    "default-src 'none'", `style-src 'sha256-${createHash("sha256").update(style).digest("base64")}'`, "script-src 'self'", "img-src 'self'",
    "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
  ].join("; "),
  html: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<link rel="icon" href="/icon.svg" type="image/svg+xml">
<style>${style}</style>
<script src="${script}" type="module"></script>
</head>
<body>
<main>
${body}
</main>
</body>
</html>
`
})
