/**
 * Where the link of a reset letter leads: a form for another password. The token
 * stays in the address until the form is sent, and is used by that alone: opening
 * the page, as mail scanners do, spends nothing.
 */
import { createHash } from "node:crypto"
import { indexStyle } from "./indexStyle.ts"
import type { Page } from "./page.ts"

const contentSecurityPolicy = [
  "default-src 'none'", `style-src 'sha256-${createHash("sha256").update(indexStyle).digest("base64")}'`, "script-src 'self'", "img-src 'self'",
  "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
].join("; ")

export const resetPage: Page = {
  contentSecurityPolicy,
  html: `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Choose another password · Tollgate</title>
<link rel="icon" href="/icon.svg">
<style>${indexStyle}</style>
</head>
<body>
<main>
<h1>Choose another password</h1>
<form>
<p><label for="password">New password, at least 8 characters</label></p>
<p><input id="password" type="password" minlength="8" maxlength="256" autocomplete="new-password" required autofocus></p>
<p><button type="submit">Change the password</button></p>
</form>
<p role="status"></p>
</main>
<script src="/password-reset.js"></script>
</body>
</html>
`
}

export const resetScript = `const form = document.querySelector("form")
const said = document.querySelector("[role=status]")
const token = new URLSearchParams(location.search).get("token") ?? ""

form.addEventListener("submit", async (event) => {
  event.preventDefault()
  const answer = await fetch("/v1/auth/password/reset", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token, new_password: form.querySelector("input").value })
  }).catch(() => undefined)
  if (answer?.status === 204) {
    form.hidden = true
    said.textContent = "Done. Every login of yours has ended: log in with the new password."
    return
  }
  const { detail } = await answer?.json().catch(() => ({})) ?? {}
  said.textContent = detail ?? "The gateway does not answer: try again"
})
`
