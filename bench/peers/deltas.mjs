/**
 * What the chat peers have in common: the way to the agent. A prompt goes out by
 * Node's own client over kept connections, and each delta of the answer comes
 * back as a string. It is what a relay needs and no more: no limit on what an
 * agent sends, and an answer that breaks off looks like one that ended.
 */
import { Agent, request } from "node:http"

const agent = new Agent({ keepAlive: true, maxSockets: Infinity })

export const deltas = (port, prompt, onDelta, onEnd) => {
  const body = JSON.stringify({ prompt, stream: true })
  const headers = { "content-type": "application/json", accept: "text/event-stream", "content-length": Buffer.byteLength(body) }
  request({ agent, host: "127.0.0.1", port, path: "/chat", method: "POST", headers }, (answer) => {
    let rest = ""
    answer.setEncoding("utf8").on("data", (text) => {
      const events = (rest + text).split("\n\n")
      rest = events.pop()
      for (const event of events) {
        if (event === "data: [DONE]") continue
        const delta = JSON.parse(event.slice("data: ".length)).choices[0].delta.content
        if (delta !== undefined) onDelta(delta)
      }
    }).on("end", onEnd).on("error", onEnd)
  }).on("error", onEnd).end(body)
}
