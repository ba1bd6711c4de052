/**
 * What the dashboard answers to who may not see it: why, and a form for an
 * admin's key. The form's script sends the key in a header, never in an address,
 * so that no log and no history has it.
 *
 * A link from another site comes without the session's cookie (SameSite=Strict);
 * asked from here it goes along, so the script asks once more by itself.
 */
import { dashboardStyle } from "./dashboardStyle.ts"
import { escapeHtml, type Page, pageOf } from "./page.ts"

/** `asks`: nothing was shown, so that there may be a session all the same. */
export const doorPage = (detail: string, asks: boolean): Page => pageOf({
  title: "Dashboard · Tollgate",
  style: dashboardStyle(),
  script: "/dashboard/door.js",
  body: `<div class="door">
<header><a href="/"><img src="/icon.svg" alt="" width="26" height="26">Tollgate</a></header>
<h1>Dashboard</h1>
<form${asks ? " data-asks" : ""}>
<label for="key">An admin’s API key</label>
<input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="acf_…:sec_…" required autofocus>
<button>Open</button>
</form>
<p role="alert">${escapeHtml(detail)}</p>
<noscript><p>This form needs JavaScript. Without it, open this address with <code>?key=key_id:secret</code>.</p></noscript>
</div>`
})

export const doorScript = `const form = document.querySelector("form")
const said = document.querySelector("[role=alert]")
const here = location.pathname
const ask = (options) => fetch(here, { redirect: "manual", ...options })

if ("asks" in form.dataset && (await ask({ method: "HEAD" })).ok) location.replace(here)

form.addEventListener("submit", async (event) => {
  event.preventDefault()
  said.textContent = ""
  const key = form.querySelector("input").value.trim()
  // What no header can hold is no key.
  const answer = await ask({ headers: { authorization: "Bearer " + key.replace(/[^\\x21-\\x7e]/g, "?") } }).catch(() => undefined)
  if (answer?.type === "opaqueredirect") return location.replace(here)
  const page = new DOMParser().parseFromString(await answer?.text() ?? "", "text/html")
  said.textContent = page.querySelector("[role=alert]")?.textContent ?? "The gateway does not answer: try again"
})
`
