/**
 * What a newcomer pastes: the commands of README, of the index page and of the
 * start's own greeting, run by a shell as they stand against a demo that was
 * started as `npm start` does. Only README's port is another here.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { type AddressInfo, createServer } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, expect, it } from "vitest"
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"

const execute = promisify(execFile)

let folder: string
let url: string
let greeting = ""
let gateway: ChildProcess
let env: NodeJS.ProcessEnv

const freePort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

/** A shell's environment that has curl. */
const withCurl = async (): Promise<NodeJS.ProcessEnv> => {
  const { PATH } = process.env
  const isThere = await execute("curl", ["--version"]).then(() => true, () => false)
  if (isThere) return { PATH }
  const { root, libraryPath } = await unpackDebian("curl")
  return { PATH: `${join(root, "usr/bin")}:${PATH}`, LD_LIBRARY_PATH: libraryPath }
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "tollgate-steps-"))
  env = await withCurl()
  const port = await freePort()
  url = `http://localhost:${port}`
  gateway = spawn(process.execPath, [resolve("dist/main.js")], { cwd: folder, env: { PATH: process.env["PATH"], PORT: String(port) }, stdio: ["ignore", "pipe", "pipe"] })
  let complaints = ""
  gateway.stderr!.on("data", (chunk) => { complaints += chunk })
  await new Promise<void>((ready, fail) => {
    gateway.stdout!.on("data", (chunk) => {
      greeting += chunk
      if (greeting.includes("Stop: Ctrl-C")) ready()
    })
    gateway.once("exit", (code) => fail(new Error(`the gateway ended with ${code}:\n${complaints}`)))
  })
})

afterAll(async () => {
  if (gateway.exitCode === null) {
    gateway.kill("SIGINT")
    await once(gateway, "exit")
  }
  rmSync(folder, { recursive: true, force: true })
})

/** Runs commands as pasted; one that fails, or an HTTP status from 400 up, fails them all. Answers what they printed. */
const paste = async (commands: string): Promise<string> => {
  const { stdout } = await execute("sh", ["-e", "-c", `curl() { command curl -sSf "$@"; }\n${commands}`], { cwd: folder, env })
  return stdout
}
/** What one order costs less than the demo has now. */
const oneCentLess = async (): Promise<string> => {
  const { api_key: key } = JSON.parse(readFileSync(join(folder, ".data/demo.json"), "utf8")) as { readonly api_key: string }
  const { balance_usd: balance } = await (await fetch(`${url}/v1/credits/balance`, { headers: { authorization: `Bearer ${key}` } })).json() as { readonly balance_usd: string }
  return (Number(balance) - 0.01).toFixed(2)
}

it("what README tells a newcomer to paste works, and leaves what it says", async () => {
  const block = /^```sh\n(KEY=[^]*?)^```$/m.exec(readFileSync("README.md", "utf8"))![1]!
  expect(block).toContain("http://localhost:8080/")
  const balance = await oneCentLess()
  const output = await paste(block.replaceAll("http://localhost:8080", url))
  expect(output).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*x-autx-agent: ECHO\r\n[^]*\{"output":"hello"\}/)
  expect(output).toMatch(/"status":"pending","amount_paid":0\.01,/)
  expect(output).toContain(`"balance_usd":"${balance}"`)
})

it("what the index page shows works", async () => {
  const page = await (await fetch(url)).text()
  const entities: Readonly<Record<string, string>> = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "\"", "&#39;": "'" }
  const commands = [...page.matchAll(/<pre[^>]*>([^]*?)<\/pre>/g)].map(([, text]) => text!.replace(/&[\w#]+;/g, (entity) => entities[entity]!))
  expect(commands).toHaveLength(4)
  const balance = await oneCentLess()
  const output = await paste(commands.join("\n"))
  expect(output).toContain(`{"output":"hello"}`)
  expect(output).toContain(`"balance_usd":"${balance}"`)
  expect(output).toContain(`"amount_usd":"-0.01"`)
})

it("what the start prints works", async () => {
  const commands = greeting.split("\n").filter((line) => line.trim().startsWith("curl "))
  expect(commands).toHaveLength(5)
  const balance = await oneCentLess()
  const output = await paste(commands.join("\n"))
  expect(output).toContain(`{"output":"hello"}`)
  expect(output).toContain(`"balance_usd":"${balance}"`)
})
