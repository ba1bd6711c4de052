/** Chat relayed by Socket.IO as its README sets it up, for whoever connects: `node socketio.mjs UPSTREAM_PORT`. */
import { createServer } from "node:http"
import { Server } from "socket.io"
import { deltas } from "./deltas.mjs"

process.stdin.resume().once("end", () => process.exit())
const server = createServer()
new Server(server).on("connection", (socket) => {
  socket.on("message", ({ prompt }) => {
    deltas(process.argv[2], prompt, (delta) => socket.emit("chunk", { data: delta }), () => socket.emit("done", {}))
  })
})
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })))
