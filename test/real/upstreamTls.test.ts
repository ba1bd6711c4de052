import { once } from "node:events"
import { writeFileSync } from "node:fs"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { type TLSSocket, type Server, createServer } from "node:tls"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import type { GatewayProcess, Person } from "../support/GatewayProcess.ts"
import { selfSigned, selfSignedKey } from "../support/selfSigned.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage(afterAll)
let server: Server
let gateway: GatewayProcess
let person: Person
let requests = 0
const sockets: Array<TLSSocket> = []
const reused: Array<boolean> = []
let release: () => void = () => {}

/** `connection: close` for the path `/close`; `/hold` waits for `release`. */
const serve = (socket: TLSSocket): void => {
  sockets.push(socket)
  reused.push(socket.isSessionReused())
  socket.on("error", () => {}).on("data", (bytes) => {
    if (!bytes.toString("latin1").startsWith("POST ")) return
    requests++
    const closes = bytes.toString("latin1").startsWith("POST /close")
    const body = `${socket.alpnProtocol} ${socket.servername}`
    const answer = (): unknown => socket.write(`HTTP/1.1 200 OK\r\n${closes ? "connection: close\r\n" : ""}content-length: ${body.length}\r\n\r\n${body}`)
    if (bytes.toString("latin1").startsWith("POST /hold")) release = answer
    else answer()
  })
}

beforeAll(async () => {
  const certificate = join(stage.directory(), "cert.pem")
  writeFileSync(certificate, selfSigned)
  server = createServer({ key: selfSignedKey, cert: selfSigned, ALPNProtocols: ["http/1.1"] }, serve).listen(0, "127.0.0.1")
  await once(server, "listening")
  stage.onEnd(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { env } = await stage.database()
  gateway = await stage.gateway({ ...env, UPSTREAM_ALLOW: "localhost", NODE_EXTRA_CA_CERTS: certificate, PROXY_BILLING: "free" })
  person = await gateway.person()
})

const callAt = async (path: string) => {
  const agent = await gateway.list(person, `https://localhost:${(server.address() as AddressInfo).port}${path}`, "0.01")
  return () => gateway.call("POST", `/v1/proxy/${agent.ticker}`, { token: person.token, body: { prompt: "hello" } })
}

describe("an agent behind TLS", () => {
  it("is called by its name, over HTTP/1.1, again on the same connection", async () => {
    const call = await callAt("/stay")
    expect((await call()).text).toBe("http/1.1 localhost")
    expect((await call()).status).toBe(200)
    expect([requests, sockets.length]).toEqual([2, 1])
  })

  it("that closes after each answer is called anew, resuming its session while another call is under way", async () => {
    const held = (await callAt("/hold"))()
    const call = await callAt("/close")
    const before = sockets.length
    for (let i = 0; i < 3; i++) expect((await call()).status).toBe(200)
    expect(reused.slice(before)).toEqual([true, true, true])
    release()
    expect((await held).status).toBe(200)
  })
})
