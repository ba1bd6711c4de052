/** The TypeScript SDK as the package that others install: by its name in Node, in a browser's bundle, and to the compiler. */
import * as esbuild from "esbuild"
import { execFile } from "node:child_process"
import { cpSync, readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { promisify } from "node:util"
import { WebSocket } from "undici"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { buildSdk } from "../../sdk/typescript/build.mjs"
import type { GatewayProcess } from "../support/GatewayProcess.ts"
import { answers } from "../support/LoopbackAgent.ts"
import { useStage } from "../support/Stage.ts"

const execute = promisify(execFile)
const stage = useStage(afterAll)

/** Somebody's project, with the package installed. */
let project: string
let gateway: GatewayProcess
let key: string

beforeAll(async () => {
  project = stage.directory()
  const installed = join(project, "node_modules/@autx-ai/client")
  await buildSdk(join(installed, "dist"))
  cpSync("sdk/typescript/package.json", join(installed, "package.json"))
  writeFileSync(join(project, "package.json"), `{"type":"module"}`)
  gateway = await stage.gateway({ ...(await stage.database()).env, SECRETS_KEY: "k".repeat(32), KEY_RATE_LIMIT_DEFAULT: "4" })
  const agent = await stage.agent(answers("A summary"))
  const owner = await gateway.person()
  const listing = { name: "Summ", ticker: "SUMM", description: "", category: "Test", endpoint_url: agent.url, service_price: "0.01" }
  await gateway.ask(201, "POST", "/v1/agents", { token: owner.token, body: listing })
  key = await gateway.key(await gateway.person("1.00"))
})

/** As the reference has it, but for where and who. */
const constructor = (): string => `
import { AutxClient } from "@autx-ai/client";

const client = new AutxClient({
  apiKey: ${JSON.stringify(key)}, // Required
  baseUrl: "${gateway.url}/api/v1", // Default: AUTX prod
  timeout: 120_000, // Milliseconds (default: 120000)
  maxRetries: 3, // Default: 3
});
`
const errorHandling = `
try {
  const response = await client.proxy("SUMM", { prompt: "test" });
  console.log(response.text());
} catch (e) {
  if (e instanceof Error) {
    console.error(e.message); // "Proxy error: 429" etc.
  }
}
`

const run = (name: string, source: string) => {
  writeFileSync(join(project, name), source)
  return execute(process.execPath, [name], { cwd: project })
}

describe("in Node", () => {
  it("the samples of the reference do what they say", async () => {
    const { stdout, stderr } = await run("samples.js", constructor() + errorHandling.repeat(5))
    expect([stdout, stderr]).toEqual(["A summary\n".repeat(4), "Proxy error: 429\n"])
  })

  it("a program ends by itself after a stream, with no WebSocket of its own", async () => {
    key = await gateway.key(await gateway.person("1.00"))
    const { stdout } = await run("stream.js", `${constructor()}
if (process.versions.node.startsWith("20.") && globalThis.WebSocket !== undefined) throw new Error("this shows nothing");
delete globalThis.WebSocket;
const stream = client.stream("SUMM", "Summarize the Fed statement");
for await (const chunk of stream) process.stdout.write(chunk.delta);
console.log(\`\\nCost: $\${stream.costUsd.toFixed(4)}\`);
`)
    expect(stdout).toBe("A summary\nCost: $0.0100\n")
  })
})

describe("in a browser's bundle", () => {
  const bundled = async (): Promise<string> => {
    writeFileSync(join(project, "page.js"), `export * from "@autx-ai/client"`)
    const outfile = join(project, "bundle.mjs")
    await esbuild.build({ absWorkingDir: project, entryPoints: ["page.js"], outfile, bundle: true, format: "esm", platform: "browser", minify: true, logLevel: "silent" })
    return outfile
  }

  it("there is nothing of Node, and not much at all", async () => {
    const code = readFileSync(await bundled(), "utf8")
    expect(code).not.toMatch(/node:|\bBuffer\b|require\(/)
    expect(code.length).toBeLessThan(14_500)
    const fromSource = await esbuild.build({ entryPoints: ["sdk/typescript/src/AutxClient.ts"], write: false, bundle: true, format: "esm", platform: "browser", minify: true })
    expect(fromSource.outputFiles[0]!.text).not.toMatch(/node:|\bBuffer\b|require\(/)
  })

  it("it chats over the browsers' own WebSocket", async () => {
    const { AutxClient } = await import(pathToFileURL(await bundled()).href) as typeof import("../../sdk/typescript/src/AutxClient.ts")
    const client = new AutxClient({ apiKey: await gateway.key(await gateway.person("1.00")), baseUrl: `${gateway.url}/v1`, webSocket: WebSocket })
    const session = client.session("SUMM")
    let text = ""
    for await (const { delta } of session.send("Hello")) text += delta
    expect([text, session.sessionTotal]).toEqual(["A summary", "0.01"])
    await session.close()
  })

  it("no module asks for one of Node's before it is needed", () => {
    for (const name of readdirSync("sdk/typescript/src")) {
      expect(readFileSync(join("sdk/typescript/src", name), "utf8"), name).not.toMatch(/^(?:import|export)(?! type)[^;\n]*from "node:/m)
    }
  })
})

describe("to the compiler", () => {
  const source = `
import { AutxClient, AutxError, type AgentListItem, type ChatChunk, type OrderResponse, type OrderResult, type ProxyResponse } from "@autx-ai/client"

const client = new AutxClient({ apiKey: "autx_live_test", fetch, webSocket: WebSocket })
const response: ProxyResponse = await client.proxy("SUMM", { prompt: "x", body: { any: 1 } })
const facts: [ArrayBuffer, number, string, Record<string, string>, string, number, string, string, { a: 1 }] = [
  response.content, response.statusCode, response.contentType, response.headers, response.requestId, response.latencyMs, response.agentTicker, response.text(), response.json<{ a: 1 }>()
]
const order: OrderResponse = await client.order("id", "x", { paymentMethod: "usdc", files: [new File(["x"], "a.txt"), ["b.txt", "y"]] })
const paid: [string, string, string, number, number, string] = [order.id, order.agent_id, order.status, order.amount_paid, order.platform_fee, order.created_at]
const result: OrderResult = await client.getOrder(order.id)
const output: [string, string, string | null, string | null, string | null] = [result.id, result.status, result.output_hash, result.output_text, result.completed_at]
const agents: AgentListItem[] = await client.listAgents({ category: "Data", sort: "revenue" })
const stream = client.stream("SUMM", "x")
for await (const chunk of stream) { const { delta }: ChatChunk = chunk; void delta }
const cost: [number, string | undefined, string | undefined, string] = [stream.costUsd, stream.orderId, stream.sessionId, stream.text()]
await using session = client.session("SUMM", { onResumed: ({ discontinuity }: { discontinuity: boolean }) => void discontinuity })
for await (const { delta } of session.send("x", { id: "y" })) void delta
const balance: string = (await client.credits.balance()).balance_usd
try { await client.credits.withdraw("5.00") } catch (error) { if (error instanceof AutxError) { const code: string = error.code; void code } }
// @ts-expect-error
new AutxClient({})
// @ts-expect-error
await client.listAgents({ sort: "best" })
void [facts, paid, output, agents, cost, balance]
`
  it.each(["nodenext", "bundler"])("its declarations are whole and say what the reference does, with module resolution %s", async (resolution) => {
    writeFileSync(join(project, "consumer.ts"), source)
    writeFileSync(join(project, `tsconfig.${resolution}.json`), JSON.stringify({
      compilerOptions: {
        target: "es2022", lib: ["es2022", "dom", "dom.iterable"], types: [], strict: true, noEmit: true, skipLibCheck: false,
        moduleResolution: resolution, module: resolution === "bundler" ? "esnext" : "nodenext"
      },
      files: ["consumer.ts"]
    }))
    const { stdout } = await execute(process.execPath, [resolve("node_modules/typescript/bin/tsc"), "-p", `tsconfig.${resolution}.json`], { cwd: project }).catch((error: { readonly stdout: string }) => error)
    expect(stdout).toBe("")
  })

  it("its sources use nothing that browsers lack", async () => {
    const { stdout } = await execute(process.execPath, [resolve("node_modules/typescript/bin/tsc"), "-p", "sdk/typescript", "--outDir", join(project, "declarations")]).catch((error: { readonly stdout: string }) => error)
    expect(stdout).toBe("")
  })
})
