/** Chat relayed by `ws` as its README sets it up, for whoever connects: `node ws.mjs UPSTREAM_PORT`. */
import { WebSocketServer } from "ws"
import { deltas } from "./deltas.mjs"

process.stdin.resume().once("end", () => process.exit())
const server = new WebSocketServer({ host: "127.0.0.1", port: 0 })
server.on("connection", (socket) => {
  socket.on("error", () => {}).on("message", (data) => {
    const { prompt } = JSON.parse(data)
    deltas(process.argv[2], prompt, (delta) => socket.send(JSON.stringify({ type: "chunk", data: delta })), () => socket.send(JSON.stringify({ type: "done" })))
  })
}).on("listening", () => console.log(JSON.stringify({ port: server.address().port })))
