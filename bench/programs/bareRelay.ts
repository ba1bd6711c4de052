/**
 * The yardstick: what uWebSockets.js and undici cost when nothing is done
 * between them. The request's body is copied out of the server's memory and
 * sent on with its content type; status, content type and body come back in one
 * write. It checks nobody, limits and counts nothing, streams nothing, and would
 * be no gateway. `node bareRelay.js UPSTREAM_PORT`.
 */
import { Pool } from "undici"
import uWS from "uWebSockets.js"
import { serve } from "../rig/agent.ts"

const upstream = new Pool(`http://127.0.0.1:${process.argv[2]}`, { connections: 64, pipelining: 1 })

const app = uWS.App().post("/*", (response, request) => {
  let isGone = false
  response.onAborted(() => { isGone = true })
  const contentType = request.getHeader("content-type")
  let body: Buffer | undefined
  response.onData((chunk, isLast) => {
    const copy = Buffer.from(chunk.slice(0))
    body = body === undefined ? copy : Buffer.concat([body, copy])
    if (!isLast) return
    let status = 0
    let type = ""
    let answer: Buffer | undefined
    upstream.dispatch({ path: "/run", method: "POST", headers: ["content-type", contentType], body }, {
      onConnect() {},
      onHeaders(code, headers) {
        status = code
        for (let at = 0; at < headers.length; at += 2) {
          if (headers[at]!.length === 12 && headers[at]!.toString("latin1") === "content-type") type = headers[at + 1]!.toString("latin1")
        }
        return true
      },
      onData(part) {
        answer = answer === undefined ? part : Buffer.concat([answer, part])
        return true
      },
      onComplete() {
        if (!isGone) response.cork(() => response.writeStatus(String(status)).writeHeader("content-type", type).end(answer ?? ""))
      },
      onError() {
        if (!isGone) response.cork(() => response.writeStatus("503 Service Unavailable").end())
      }
    })
  })
})
serve(app)
