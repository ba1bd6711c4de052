/**
 * The page at `/chat`: pick an agent, paste a key, talk. Its script
 * (`chatScript.ts`) speaks through the TypeScript SDK, as any other client. The
 * page itself holds no secret; in demo mode it offers to fetch the demo's key,
 * which the gateway gives to its own page on this machine alone.
 */
import { chatStyle } from "./chatStyle.ts"
import { type Page, pageOf } from "./page.ts"

export const chatPage = (demo: boolean): Page => pageOf({
  title: "Chat · Tollgate",
  style: chatStyle,
  script: "/chat/chat.js",
  body: `<header>
<a href="/"><img src="/icon.svg" alt="" width="26" height="26">Tollgate</a>
<span id="money" role="status" aria-label="Balance"></span>
</header>
<form id="setup">
<label>Agent<select id="agent" required><option value="">Loading…</option></select></label>
<label>API key<span id="key"><input id="token" type="password" autocomplete="off" spellcheck="false" placeholder="autx_live_…" required>${demo ? `<button type="button" id="demo">Demo’s</button>` : ""}</span></label>
<p id="about"></p>
</form>
<div id="log" role="log" aria-live="polite" aria-label="Conversation" tabindex="0"></div>
<form id="composer">
<textarea id="prompt" rows="1" aria-label="Message" placeholder="Message" required></textarea>
<button type="button" id="cancel" hidden>Stop</button>
<button class="main" id="send">Send</button>
</form>
<footer><span id="state" role="status"></span><button type="button" id="receipt" hidden>Receipt</button><button type="button" id="close" hidden>Close session</button></footer>
<noscript>This page needs JavaScript. The API does not: see <a href="/docs">the documentation</a>.</noscript>`
})
