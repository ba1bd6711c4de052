/** @fastify/http-proxy as its README sets it up, with the connections that the others get: `node fastify.mjs UPSTREAM_PORT`. */
import proxy from "@fastify/http-proxy"
import fastify from "fastify"

process.stdin.resume().once("end", () => process.exit())
const app = fastify()
await app.register(proxy, { upstream: `http://127.0.0.1:${process.argv[2]}`, undici: { connections: 64, pipelining: 1 } })
await app.listen({ host: "127.0.0.1", port: 0 })
console.log(JSON.stringify({ port: app.server.address().port }))
