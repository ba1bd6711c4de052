/**
 * The chat page's own script, on the TypeScript SDK (`/chat/client.js`). What an
 * agent or its owner wrote is only ever set as text. The key lives in the tab's
 * session storage; so does the open session's id, with which a reloaded page
 * goes on.
 */
export const chatScript = `import { AutxClient } from "/chat/client.js"

const $ = (id) => document.getElementById(id)
const baseUrl = location.origin + "/v1"
const store = sessionStorage
let agents = []
let client, session, turn

const agentOf = (ticker) => agents.find((agent) => agent.ticker === ticker)
const usd = (text) => "$" + text
const priceOf = (agent) => agent.service_price === 0 ? "free" : "$" + agent.service_price + " a message"

// What people see.

const log = $("log")
const add = (kind, text) => {
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80
  const line = document.createElement("div")
  line.className = kind
  line.textContent = text
  log.append(line)
  if (isAtEnd || kind === "mine") log.scrollTop = log.scrollHeight
  return line
}
const state = (text) => { $("state").textContent = text }
const money = (remaining, reserved) => {
  const amount = document.createElement("b")
  amount.textContent = usd(remaining)
  $("money").replaceChildren("Balance ", amount, reserved && !/^0\\.0*$/.test(reserved) ? " · " + usd(reserved) + " reserved" : "")
}
const show = () => {
  $("cancel").hidden = turn === undefined
  $("send").disabled = turn !== undefined
  $("close").hidden = session === undefined
  $("setup").classList.toggle("talking", session !== undefined)
  $("agent").disabled = $("token").disabled = session !== undefined
  if ($("demo")) $("demo").disabled = session !== undefined
}
const about = () => {
  const agent = agentOf($("agent").value)
  $("about").textContent = agent === undefined ? "" : agent.name + ", " + priceOf(agent) + (agent.description ? ". " + agent.description : "")
}

const advice = {
  auth_failed: "The key is not accepted. Paste another one.",
  forbidden_scope: "This key lacks the scope orders. Paste another one.",
  insufficient_credits: "The balance is too low for another message. Add credits, then go on.",
  agent_paused: "Its owner has paused the agent. Pick another one, or come back later.",
  agent_not_found: "There is no such agent any more. Pick another one.",
  sessions_not_supported: "This agent takes no chats. Pick another one.",
  network: "The gateway can't be reached. Is it running?"
}
const fail = (error) => {
  const known = error.status === 401 ? advice.auth_failed : advice[error.code]
  add("note bad", known ?? error.detail ?? error.message)
}

// Talking.

const connect = () => {
  if (client === undefined || client.key !== $("token").value) client = Object.assign(new AutxClient({ apiKey: $("token").value.trim(), baseUrl }), { key: $("token").value })
  return client
}
const balance = async () => {
  const { balance_usd, reserved_usd } = await connect().credits.balance()
  money(balance_usd, reserved_usd)
}
const left = (error) => {
  const ended = session
  session = turn = undefined
  store.removeItem("session")
  state("")
  if (error !== undefined) fail(error)
  show()
  if (ended?.sessionTotal && !/^0\\.0*$/.test(ended.sessionTotal)) {
    add("note", "Session closed. It cost " + usd(ended.sessionTotal) + ".")
    $("receipt").hidden = false
    $("receipt").dataset.session = ended.sessionId
  }
  balance().catch(() => {})
}
const open = (ticker, sessionId) => {
  $("receipt").hidden = true
  const opened = connect().session(ticker, {
    ...(sessionId === undefined ? {} : { sessionId }),
    onReconnecting: () => state("Connection lost. Trying again…"),
    onResumed: ({ discontinuity }) => {
      state("Connected again")
      if (discontinuity) add("note", "The gateway was restarted: an answer that was under way is lost, and was not charged.")
    },
    onClosed: (error) => { if (session === opened) left(error) }
  })
  return opened
}

const read = async (answer) => {
  const bubble = add("theirs", "")
  const text = bubble.appendChild(document.createTextNode(""))
  bubble.setAttribute("aria-busy", "true")
  turn = answer
  show()
  try {
    for await (const { delta, restarted } of answer) {
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80
      if (restarted) text.data = delta
      else text.appendData(delta)
      if (isAtEnd) log.scrollTop = log.scrollHeight
    }
    state("")
    add("note", answer.isCancelled ? "Stopped. Nothing was charged." : usd(answer.amountCharged) + " · " + usd(session?.sessionTotal ?? answer.amountCharged) + " this session")
  } catch (error) {
    if (text.data === "") bubble.remove()
    if (session !== undefined) fail(error)
  }
  bubble.removeAttribute("aria-busy")
  if (turn === answer) turn = undefined
  if (session?.creditsRemaining !== undefined) money(session.creditsRemaining, session.creditsReserved)
  show()
}

const send = async () => {
  const prompt = $("prompt").value
  const ticker = $("agent").value
  if (turn !== undefined || prompt.trim() === "") return
  if (!$("setup").reportValidity()) return
  try {
    if (session === undefined) {
      session = open(ticker)
      state("Connecting…")
      show()
    }
    const answer = session.send(prompt)
    add("mine", prompt)
    $("prompt").value = ""
    const opened = session
    opened.open().then(() => {
      state("")
      store.setItem("session", JSON.stringify({ ticker, id: opened.sessionId }))
      if (opened.creditsReserved !== undefined && opened.creditsRemaining === undefined) balance().catch(() => {})
    }, () => {})
    await read(answer)
  } catch (error) {
    fail(error)
  }
  $("prompt").focus()
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault()
  send()
})
$("setup").addEventListener("submit", (event) => event.preventDefault())
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault()
    send()
  }
})
document.addEventListener("keydown", (event) => { if (event.key === "Escape") turn?.cancel() })
$("cancel").addEventListener("click", () => turn?.cancel())
$("close").addEventListener("click", () => session?.close())
$("receipt").addEventListener("click", async () => {
  try {
    const bytes = await connect().getSessionReceipt($("receipt").dataset.session)
    const link = document.createElement("a")
    link.href = URL.createObjectURL(new Blob([bytes], { type: "application/pdf" }))
    link.download = "receipt-" + $("receipt").dataset.session + ".pdf"
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  } catch (error) {
    fail(error)
  }
})

// Who talks, and to whom.

$("agent").addEventListener("change", about)
$("token").addEventListener("change", () => {
  store.setItem("key", $("token").value.trim())
  if ($("token").value.trim() !== "") balance().catch(fail)
})
$("demo")?.addEventListener("click", async () => {
  const answer = await fetch("/chat/demo-key", { method: "POST" }).catch(() => undefined)
  if (answer?.ok !== true) return add("note bad", "The demo's key is given on this machine only: open this page as http://localhost.")
  $("token").value = (await answer.json()).api_key
  $("token").dispatchEvent(new Event("change"))
  $("prompt").focus()
})

const listAgents = async () => {
  const answer = await fetch(baseUrl + "/agents/?limit=100&sort=trending")
  if (!answer.ok) throw new Error("Agents can't be listed: " + answer.status)
  agents = (await answer.json()).filter(({ manifest }) => manifest?.supports_sessions !== false && manifest?.input?.type !== "multipart")
  $("agent").replaceChildren(...agents.map((agent) => new Option(agent.ticker + " · " + priceOf(agent), agent.ticker)))
  if (agents.length === 0) $("agent").replaceChildren(new Option("No agent is listed yet", ""))
  const paid = agents.find(({ service_price }) => service_price > 0)
  if (paid !== undefined) $("agent").value = paid.ticker
  about()
}
/** A reloaded page goes on where it was. */
const goOn = async () => {
  const kept = JSON.parse(store.getItem("session") ?? "null")
  if (kept === null || agentOf(kept.ticker) === undefined) return
  $("agent").value = kept.ticker
  about()
  for (const { role, content } of await connect().getSessionMessages(kept.id, { limit: 100 })) add(role === "user" ? "mine" : "theirs", content)
  const resumed = session = open(kept.ticker, kept.id)
  show()
  await resumed.open()
  if (resumed.turn !== undefined) await read(resumed.turn)
}

$("token").value = store.getItem("key") ?? ""
show()
try {
  await listAgents()
  if ($("token").value !== "") {
    await balance()
    await goOn()
  }
} catch (error) {
  if (session === undefined) fail(error)
}
$("prompt").focus()
`
