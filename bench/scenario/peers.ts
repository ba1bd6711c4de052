/**
 * The same calls through other proxies, each started here, measured and stopped.
 * They are not gateways of this kind: HAProxy and nginx forward and no more,
 * @fastify/http-proxy is the usual proxy of Node, and @portkey-ai/gateway is a
 * gateway for models that checks no key and counts no call here.
 *
 * HAProxy and nginx are installed or unpacked from Debian's packages, the other
 * two come by `npm ci` in bench/peers. Whatever can't be had is left out, with
 * its reason.
 */
import { execFile } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { join, resolve } from "node:path"
import type { Rig, Running } from "../rig/Rig.ts"
import { findTool } from "../rig/wrk.ts"

export interface Peer {
  readonly name: string
  readonly start: (rig: Rig, agentPort: number) => Promise<Running>
  readonly path: string
  readonly headers: (agentPort: number) => Readonly<Record<string, string>>
}

const json = { "content-type": "application/json", authorization: "Bearer nobody-checks-this" }
const folder = resolve("bench/peers")
const installMs = 300_000

export const peers: ReadonlyArray<Peer> = [
  { name: "HAProxy", path: "/v1/proxy/BENCH", headers: () => json, start: (rig, agentPort) => startHaproxy(rig, agentPort) },
  { name: "nginx", path: "/v1/proxy/BENCH", headers: () => json, start: (rig, agentPort) => startNginx(rig, agentPort) },
  { name: "@fastify/http-proxy", path: "/v1/proxy/BENCH", headers: () => json, start: (rig, agentPort) => startProgram(rig, "fastify.mjs", agentPort) },
  {
    name: "@portkey-ai/gateway", path: "/v1/chat/completions", start: (rig) => startPortkey(rig),
    headers: (agentPort) => ({ ...json, "x-portkey-provider": "openai", "x-portkey-custom-host": `http://127.0.0.1:${agentPort}/v1` })
  }
]

const startHaproxy = async (rig: Rig, agentPort: number): Promise<Running> => {
  const tool = await findTool("haproxy")
  const port = await freePort()
  const config = join(rig.folder(), "haproxy.cfg")
  writeFileSync(config, `
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen relay
  bind 127.0.0.1:${port}
  http-reuse always
  server upstream 127.0.0.1:${agentPort}
`)
  return rig.server(tool.path, ["-db", "-f", config], { port }, tool.env)
}

const startNginx = async (rig: Rig, agentPort: number): Promise<Running> => {
  const tool = await findTool("nginx")
  const port = await freePort()
  const home = rig.folder()
  writeFileSync(join(home, "nginx.conf"), `
daemon off;
master_process off;
pid ${home}/nginx.pid;
error_log stderr;
events { worker_connections 1000; }
http {
  access_log off;
  keepalive_requests 1000000000;
${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `  ${name}_temp_path ${home};`).join("\n")}
  upstream agent { server 127.0.0.1:${agentPort}; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
`)
  return rig.server(tool.path, ["-e", "stderr", "-p", home, "-c", join(home, "nginx.conf")], { port }, tool.env)
}

/** One of bench/peers that relays to the agent. */
export const startProgram = async (rig: Rig, file: string, agentPort: number): Promise<Running> => {
  await installed()
  return rig.server(process.execPath, [join(folder, file), String(agentPort)], "listening")
}

const startPortkey = async (rig: Rig): Promise<Running> => {
  await installed()
  const port = await freePort()
  return rig.server(process.execPath, [join(folder, "node_modules/@portkey-ai/gateway/build/start-server.js"), "--headless", `--port=${port}`], { port }, { NODE_ENV: "production" })
}

/** Somebody else may take it before it is listened on; then that peer does not start. */
const freePort = (): Promise<number> => new Promise((done, fail) => {
  const server = createServer().once("error", fail).listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo
    server.close(() => done(port))
  })
})

let installing: Promise<void> | undefined

const installed = (): Promise<void> => installing ??= new Promise((done, fail) => {
  if (isInstalled()) return done()
  console.error("Installing the peers (about 20 s)…")
  const cli = process.env["npm_execpath"]
  const [command, ...before] = cli !== undefined && /npm-cli\.c?js$/.test(cli) ? [process.execPath, cli] : ["npm"]
  const args = [...before, "ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
  execFile(command!, args, { timeout: installMs }, (error, _, stderr) =>
    error === null ? done() : fail(new Error(`npm ci in bench/peers failed: ${stderr.trim().split("\n").at(-1) ?? error.message}`)))
})

/** npm's own record holds what the lock file asks for. */
const isInstalled = (): boolean => {
  const record = join(folder, "node_modules/.package-lock.json")
  if (!existsSync(record)) return false
  const packagesIn = (file: string) => (JSON.parse(readFileSync(file, "utf8")) as { readonly packages: Readonly<Record<string, { readonly version?: string; readonly optional?: boolean }>> }).packages
  const found = packagesIn(record)
  return Object.entries(packagesIn(join(folder, "package-lock.json"))).every(([path, { version, optional }]) => path === "" || optional === true || found[path]?.version === version)
}
