/**
 * The agent of every scenario. It answers 200 bytes of JSON at once, as cheaply
 * as a server can, because it shares its core with the load. `/large` answers
 * 4 MiB, `/fail` fails, for the soak.
 *
 * `serveAgent` is also how its program begins and ends: it says the port it got,
 * and goes when the bench goes.
 */
import uWS, { type TemplatedApp } from "uWebSockets.js"

/** What every call sends. */
export const body = `{"model":"bench","messages":[{"role":"user","content":"hello"}]}`

const answer = JSON.stringify({
  id: "chatcmpl-1", object: "chat.completion", created: 1_700_000_000, model: "bench",
  choices: [{ index: 0, message: { role: "assistant", content: "A call came in. It was paid." }, finish_reason: "stop" }]
})
export const largeBytes = 4 * 1_024 * 1_024
const large = Buffer.alloc(largeBytes, "large ")

/** Answers when the request has been read to its end. */
const replies = (status: string, type: string, body: string | Buffer) => (response: uWS.HttpResponse): void => {
  response.onAborted(() => {})
  response.onData((_, isLast) => {
    if (isLast) response.cork(() => response.writeStatus(status).writeHeader("content-type", type).end(body))
  })
}

export const serveAgent = (): void => serve(uWS.App()
  .any("/large", replies("200 OK", "text/plain", large))
  .any("/fail", replies("500 Internal Server Error", "text/plain", "failed"))
  .any("/*", replies("200 OK", "application/json", answer)))

export const serve = (app: TemplatedApp): void => {
  process.stdin.resume().once("end", () => process.exit())
  app.listen("127.0.0.1", 0, (socket) => {
    if (socket === false) process.exit(1)
    console.log(JSON.stringify({ port: uWS.us_socket_local_port(socket) }))
  })
}
