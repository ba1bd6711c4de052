import { connect } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type DemoUpstream, startDemoUpstream, summarise } from "../../../src/runtime/DemoUpstream.ts"

describe("the demo upstream", () => {
  let upstream: DemoUpstream
  beforeAll(async () => {
    upstream = await startDemoUpstream()
  })
  afterAll(() => upstream.stop())

  const post = (path: string, body: string | Uint8Array): Promise<Response> => fetch(`http://127.0.0.1:${upstream.port}${path}`, { method: "POST", body: body as string })

  it("echoes the prompt of a JSON body", async () => {
    const response = await post("/echo", JSON.stringify({ prompt: "grüße 👋" }))
    expect(response.headers.get("content-type")).toBe("application/json")
    expect(await response.json()).toEqual({ output: "grüße 👋" })
  })

  it.each([
    ["text that is no JSON", "just words"],
    ["JSON without a prompt", `{"input":1}`],
    ["a prompt that is no text", `{"prompt":{"a":1}}`],
    ["null", "null"],
    ["nothing", ""]
  ])("echoes %s as it came", async (_, body) => {
    expect(await (await post("/echo", body)).json()).toEqual({ output: body })
  })

  it("summarises with sentences of the text, in their order", async () => {
    const text = "Ledgers keep money. Cats sleep. Money moves between ledgers. It rains. Every ledger keeps its money in balance. Bye."
    const { output } = await (await post("/summ", JSON.stringify({ prompt: text }))).json() as { output: string }
    expect(output).toBe("Ledgers keep money. Money moves between ledgers. Every ledger keeps its money in balance.")
  })

  it("leaves a short text as it is, and reads only the beginning of an endless one", () => {
    expect(summarise("One sentence only")).toBe("One sentence only")
    expect(summarise("")).toBe("")
    expect(summarise(`${"a".repeat(20_000)} never read. Neither this. Nor this. Nor that.`)).toBe("a".repeat(20_000))
  })

  it("takes a body of exactly 1 MiB and refuses one byte more", async () => {
    const fits = await post("/echo", "x".repeat(1024 * 1024))
    expect((await fits.json() as { output: string }).output.length).toBe(1024 * 1024)
    expect((await post("/echo", "x".repeat(1024 * 1024 + 1))).status).toBe(413)
  })

  it.each(["one", "  a few  words\nand a line ", "", "word ".repeat(1_000)])("streams the very same answer to who asks for events: %#", async (prompt) => {
    const response = await fetch(`http://127.0.0.1:${upstream.port}/echo`, { method: "POST", headers: { accept: "text/event-stream, application/json" }, body: JSON.stringify({ prompt }) })
    expect(response.headers.get("content-type")).toBe("text/event-stream")
    const events = (await response.text()).split("\n\n").filter((event) => event !== "").map((event) => event.slice("data: ".length))
    expect(events.at(-1)).toBe("[DONE]")
    expect(events.slice(0, -1).map((event) => JSON.parse(event).choices[0].delta.content).join("")).toBe(prompt)
    expect(events.length).toBeLessThan(90)
  })

  it("refuses other paths and methods", async () => {
    expect((await post("/nobody", "x")).status).toBe(404)
    const get = await fetch(`http://127.0.0.1:${upstream.port}/echo`)
    expect([get.status, get.headers.get("allow")]).toEqual([405, "POST"])
  })

  it("survives a caller that goes away in the middle of its body", async () => {
    const socket = connect(upstream.port, "127.0.0.1")
    await new Promise<void>((done) => socket.write("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf", () => done()))
    socket.resetAndDestroy()
    expect((await post("/echo", "still here")).status).toBe(200)
  })

  it("stops although a connection is open, and frees its port", async () => {
    const other = await startDemoUpstream()
    const socket = connect(other.port, "127.0.0.1")
    await new Promise((done) => socket.once("connect", done))
    const closed = new Promise((done) => socket.once("close", done))
    await other.stop()
    await closed
    const again = await startDemoUpstream({ port: other.port })
    expect(again.port).toBe(other.port)
    await again.stop()
  })

  it("says so when its port is taken", async () => {
    await expect(startDemoUpstream({ port: upstream.port })).rejects.toThrow("EADDRINUSE")
  })
})
