/**
 * Where the link of a reset letter leads: a form for another password. The token
 * stays in the address until the form is sent, and is used by that alone: opening
 * the page, as mail scanners do, spends nothing.
 */
import { indexStyle } from "./indexStyle.ts"
import { pageOf } from "./page.ts"

export const resetPage = pageOf({
  title: "Choose another password · Tollgate",
  style: indexStyle,
  script: "/password-reset.js",
  body: `<header>
<h1>Choose another password</h1>
</header>
<form>
<p><label for="password">New password, at least 8 characters</label></p>
<p><input id="password" type="password" minlength="8" maxlength="256" autocomplete="new-password" required autofocus></p>
<p><button type="submit">Change the password</button></p>
</form>
<p role="status"></p>`
})

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
