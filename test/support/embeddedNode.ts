/**
 * A process that runs nothing but an embedded server, to be killed by a test. It
 * runs from a bundle, since Node does not read TypeScript.
 */
import { spawn } from "node:child_process"
import { mkdirSync } from "node:fs"
import { resolve } from "node:path"
import { createInterface } from "node:readline"
import { pathToFileURL } from "node:url"
import { build } from "esbuild"
import type { EmbeddedServer } from "../../src/store/Embedded.ts"

export interface EmbeddedNode {
  readonly ready: Promise<{ readonly options: EmbeddedServer["options"]; readonly pid: number }>
  /** Kills the process, not its server; answers when it is gone. */
  readonly kill9: () => Promise<void>
}

/** Answers the bundle's path. It lies in the project, where its packages are found. */
export const bundleEmbedded = async (): Promise<string> => {
  mkdirSync(resolve(".cache"), { recursive: true })
  const outfile = resolve(".cache", `embedded-${process.pid}.mjs`)
  await build({ entryPoints: ["src/store/Embedded.ts"], outfile, bundle: true, format: "esm", platform: "node", packages: "external", logLevel: "error" })
  return outfile
}

export const startEmbeddedNode = (bundle: string, dataDir: string): EmbeddedNode => {
  const program = `
    const { startEmbedded } = await import(${JSON.stringify(pathToFileURL(bundle).href)})
    const server = await startEmbedded({ dataDir: ${JSON.stringify(dataDir)} })
    console.log(JSON.stringify({ options: server.options, pid: server.pid() }))`
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] })
  const gone = new Promise<void>((done) => child.once("exit", () => done()))
  const ready = new Promise<Awaited<EmbeddedNode["ready"]>>((done, fail) => {
    createInterface({ input: child.stdout }).on("line", (line) => done(JSON.parse(line) as Awaited<EmbeddedNode["ready"]>))
      .on("close", () => fail(new Error("the process ended before its server was ready")))
  })
  ready.catch(() => {}) // A test that kills it earlier does not wait for it.
  return {
    ready,
    kill9: () => {
      child.kill("SIGKILL")
      return gone
    }
  }
}
