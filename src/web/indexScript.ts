/**
 * The index page's own script: copies commands, where the browser allows that,
 * and keeps the status line true while somebody looks at the page. Without it
 * the page lacks nothing else.
 */
export const indexScript = `const askMs = 5000
const shownMs = 1500

const status = document.querySelector(".status")
const show = ({ ready, reasons }) => {
  status.dataset.ready = String(ready)
  status.querySelector(".reasons").textContent = reasons.join(", ")
}
const ask = async () => {
  if (document.hidden) return
  show(await fetch("/ready").then((answer) => answer.json()).catch(() => ({ ready: false, reasons: ["the gateway does not answer"] })))
}
setInterval(ask, askMs)
document.addEventListener("visibilitychange", ask)

for (const button of navigator.clipboard ? document.querySelectorAll("li button") : []) {
  button.hidden = false
  button.addEventListener("click", async () => {
    const copied = await navigator.clipboard.writeText(button.closest("li").querySelector("pre").textContent).then(() => true, () => false)
    button.textContent = copied ? "Copied" : "Not allowed"
    setTimeout(() => { button.textContent = "Copy" }, shownMs)
  })
}
`
