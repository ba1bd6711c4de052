/**
 * What scripts/deploy/ holds, as far as one machine can try it: the image's
 * files are put together as its Dockerfile says and run, the balancer's
 * configuration is used by a real HAProxy, the rest is read as its readers do.
 */
import { parseYaml } from "@redocly/openapi-core"
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import packageJson from "../../package.json" with { type: "json" }
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"
import { readSettings } from "../../src/config.ts"
import { type Cluster, startCluster } from "../support/ClusterProcesses.ts"
import { until } from "../support/GatewayProcess.ts"

const execute = promisify(execFile)
const folder = "scripts/deploy"
const read = (name: string): string => readFileSync(join(folder, name), "utf8")

/** `NAME=value` lines. */
const variablesIn = (text: string): Readonly<Record<string, string>> =>
  Object.fromEntries([...text.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]))
/** As the program would be started by npm. */
const command = `node ${/(?: --\S+)+/.exec(packageJson.scripts.start)![0].trim()} dist/main.js`
/** Every name that a setting is read by. */
const settingNames = (): ReadonlySet<string> => {
  const names = new Set<string>()
  readSettings(new Proxy({}, { get: (_, name) => void names.add(String(name)) }))
  return names
}

describe("compose.yaml", () => {
  interface Service {
    readonly image?: string
    readonly build?: { readonly context: string; readonly dockerfile: string }
    readonly environment?: Readonly<Record<string, string>>
    readonly depends_on?: ReadonlyArray<string> | Readonly<Record<string, { readonly condition: string }>>
    readonly volumes?: ReadonlyArray<string>
    readonly healthcheck?: object
    readonly stop_grace_period?: string
  }
  const text = read("compose.yaml")
  const compose = parseYaml(text) as { readonly services: Readonly<Record<string, Service>>; readonly volumes: object }
  const gateway = compose.services["gateway"]!

  it("names files, services and volumes that are there", () => {
    for (const [name, { build, image, depends_on = [], volumes = [] }] of Object.entries(compose.services)) {
      expect(image ?? build, name).toBeDefined()
      for (const other of Array.isArray(depends_on) ? depends_on as ReadonlyArray<string> : Object.keys(depends_on)) expect(compose.services, name).toHaveProperty(other)
      for (const [other, { condition }] of Object.entries(Array.isArray(depends_on) ? {} : depends_on as Exclude<typeof depends_on, ReadonlyArray<string>>)) {
        expect([condition, compose.services[other]!.healthcheck]).toEqual(["service_healthy", expect.anything()])
      }
      for (const [from] of volumes.map((volume) => volume.split(":"))) {
        if (from!.startsWith("./")) expect(existsSync(join(folder, from!)), from).toBe(true)
        else expect(compose.volumes).toHaveProperty(from!)
      }
    }
    expect(existsSync(join(folder, gateway.build!.context, gateway.build!.dockerfile))).toBe(true)
  })

  it("gives the gateway settings that it reads and takes, and no secret that is not the operator's own", () => {
    const own = variablesIn(read("compose.env.example"))
    const needed = [...text.matchAll(/\$\{([A-Z_]+):\?/g)].map(([, name]) => name!)
    expect(needed).toEqual(expect.arrayContaining(["POSTGRES_PASSWORD", "REDIS_PASSWORD", "SECRETS_KEY"]))
    for (const name of needed) expect(own[name], name).toBe("")
    const given = Object.fromEntries(needed.map((name) => [name, "0123456789abcdef".repeat(4)]))
    const environment = Object.fromEntries(Object.entries(gateway.environment!).map(([name, value]) =>
      [name, value.replace(/\$\{([A-Z_]+):[-?]([^}]*)\}/g, (_, variable: string, fallback: string) => given[variable] ?? fallback)]))
    for (const name of Object.keys(environment)) expect(settingNames().has(name), name).toBe(true)
    expect(readSettings(environment)).toMatchObject({ redisUrl: `redis://:${given["REDIS_PASSWORD"]}@redis:6379`, demo: false, enableTestCredits: false })
    // The secrets' last word: nowhere is one written down.
    for (const line of text.split("\n").filter((line) => /password|secret/i.test(line) && !line.trim().startsWith("#"))) expect(line).toMatch(/\$\{\w+:\?/)
  })

  it("leaves a node the time that its stop takes", () => {
    expect(Number.parseInt(gateway.stop_grace_period!)).toBeGreaterThanOrEqual(20)
  })
})

describe("tollgate@.service", () => {
  const unit = read("tollgate@.service")
  const settingOf = (name: string): string | undefined => new RegExp(`^${name}=(.*)$`, "m").exec(unit)?.[1]

  it("runs what npm start runs, ends it gracefully and brings it back", () => {
    expect(settingOf("ExecStart")).toBe(`/usr/bin/${command}`)
    expect([settingOf("Restart"), settingOf("User")]).toEqual(["always", "tollgate"])
    expect(Number(settingOf("TimeoutStopSec"))).toBeGreaterThanOrEqual(20)
  })

  it("is accepted by systemd, where there is one", async () => {
    const isThere = existsSync("/usr/bin/systemd-analyze")
    const made = mkdtempSync(join(tmpdir(), "tollgate-unit-"))
    try {
      // The check looks for the program, which is elsewhere on some machines.
      writeFileSync(join(made, "tollgate@.service"), unit.replace("/usr/bin/node", process.execPath))
      const { stdout, stderr } = isThere ? await execute("systemd-analyze", ["verify", join(made, "tollgate@.service")]) : { stdout: "", stderr: "" }
      expect(stdout + stderr).not.toContain("tollgate@")
    } finally {
      rmSync(made, { recursive: true })
    }
  })

  it("comes with an example of settings that the gateway takes", () => {
    const example = variablesIn(read("tollgate.env.example"))
    for (const name of Object.keys(example)) expect(settingNames().has(name), name).toBe(true)
    expect(readSettings({ ...example, SECRETS_KEY: "k".repeat(64) }).redisUrl).toBe("redis://127.0.0.1:6379")
  })
})

describe("the image and the balancer", () => {
  const dockerfile = read("Dockerfile")
  const [building, running] = dockerfile.split(/^FROM /m).slice(1) as [string, string]
  let cluster: Cluster
  let made: string
  let node: ChildProcess | undefined
  let balancer: ChildProcess | undefined

  beforeAll(async () => {
    made = mkdtempSync(join(tmpdir(), "tollgate-image-"))
    cluster = await startCluster({ nodes: 1 })
  })
  afterAll(async () => {
    for (const child of [node, balancer]) child?.kill("SIGKILL")
    await cluster.end()
    rmSync(made, { recursive: true, maxRetries: 20 })
  })

  const freePort = async (): Promise<number> => {
    const server = createServer()
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
    const { port } = server.address() as { readonly port: number }
    await new Promise((done) => server.close(done))
    return port
  }
  /** Waits until it holds, and fails when the program ends before. */
  const untilOf = (child: ChildProcess, holds: () => Promise<boolean>): Promise<void> => Promise.race([
    until(holds),
    new Promise<void>((_, fail) => child.once("exit", (code) => fail(new Error(`${child.spawnfile} ended with ${code}`))))
  ])
  /** Copies of one stage: from, to. */
  const copies = (stage: string): ReadonlyArray<readonly [from: string, to: string]> =>
    [...stage.matchAll(/^COPY (?:--from=\S+ )?(.+) (\S+)$/gm)].flatMap(([, from, to]) => from!.split(" ").map((one) =>
      [one.replace("/app/", ""), to === "./" ? one.split("/").at(-1)! : to!] as const))
  const status = (port: number, path: string): Promise<number | undefined> =>
    fetch(`http://127.0.0.1:${port}${path}`, { headers: { connection: "close" } }).then(async (answer) => {
      await answer.arrayBuffer()
      return answer.status
    }, () => undefined)

  it("is put together from files that make the program, and runs as a node of others behind the balancer", { timeout: 180_000 }, async () => {
    const [build, image] = [join(made, "build"), join(made, "image")]
    for (const [from, to] of copies(building)) {
      mkdirSync(dirname(join(build, to)), { recursive: true })
      cpSync(from, join(build, to), { recursive: true, filter: (path) => !path.includes("node_modules") })
    }
    const [installs, ...runs] = [...building.matchAll(/^RUN (.+)$/gm)].map(([, words]) => words!)
    expect(installs).toMatch(/^npm ci --omit=dev --ignore-scripts /)
    // What it would install is here already; the compiler, which would take its time, is not among it.
    mkdirSync(join(build, "node_modules"))
    for (const name of readdirSync("node_modules")) if (name !== "typescript") symlinkSync(resolve("node_modules", name), join(build, "node_modules", name))
    for (const words of runs) await execute("sh", ["-c", words], { cwd: build })
    mkdirSync(image)
    for (const [from, to] of copies(running)) cpSync(join(build, from), join(image, to), { recursive: true })

    const [, words] = /^CMD (\[.+\])$/m.exec(running)!
    const [program, ...args] = JSON.parse(words!) as [string, ...Array<string>]
    expect(args.at(-1)).toMatch(new RegExp(`exec ${command}$`))
    const port = await freePort()
    const env = { PATH: process.env["PATH"], NODE_ENV: "production", PORT: String(port), REDIS_URL: cluster.redis.url, ...cluster.database.env, SECRETS_KEY: "k".repeat(32), CLUSTER_HOST: "127.0.0.1" }
    const own = spawn(program, args, { cwd: image, env, stdio: "ignore" })
    node = own
    const [, health] = /^HEALTHCHECK [^]*?CMD (\[.+\])$/m.exec(running)!
    const [probe, ...probed] = JSON.parse(health!) as [string, ...Array<string>]
    await expect(execute(probe, probed, { env: { ...env, PORT: "1" } })).rejects.toThrow()
    await untilOf(own, async () => await status(port, "/ready") === 200)
    await execute(probe, probed, { env })

    // HAProxy in front of it and of the node that was there before, each by its own address instead of Docker's names.
    const entrance = await freePort()
    const servers = [port, cluster.nodes[0]!.gateway.port].map((each, at) => `  server node${at} 127.0.0.1:${each}`).join("\n")
    const config = join(made, "haproxy.cfg")
    writeFileSync(config, read("haproxy.cfg").replace("bind :8080", `bind 127.0.0.1:${entrance}`).replace(/^ *server-template .*$/m, servers))
    const { root, libraryPath } = await unpackDebian("haproxy")
    const front = spawn(join(root, "usr/sbin/haproxy"), ["-db", "-f", config], { env: { LD_LIBRARY_PATH: libraryPath }, stdio: "ignore" })
    balancer = front
    const served = async (): Promise<boolean> => (await Promise.all(Array.from({ length: 20 }, () => status(entrance, "/v1/agents")))).every((each) => each === 200)
    await untilOf(front, served)

    const ended = new Promise((done) => own.once("exit", (code) => done(code)))
    own.kill("SIGTERM")
    expect(await ended).toBe(0)
    // By the other node, whatever the balancer knows by now: a call that reached nobody is tried elsewhere.
    await untilOf(front, served)
  })
})
