/** Calls that another node must answer and doesn't: what the caller is told, what is tried again, and what never is. */
import { Deferred, Effect } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { describe, expect, it } from "vitest"
import { Overloaded } from "../../src/domain/errors.ts"
import type { RelayCall } from "../../src/kernel/Relay.ts"
import { signal } from "../support/EdgeClient.ts"
import { useHop } from "../support/HopScene.ts"

const scene = useHop()
const { connect, raw, restart } = scene

const placed = "Host: a\r\nAuthorization: Bearer placed\r\n"
const closing = `${placed}Connection: close\r\n`

const get = `GET /v9/things/1 HTTP/1.1\r\n${closing}\r\n`
const post = `POST /v9/things HTTP/1.1\r\n${closing}Content-Length: 14\r\n\r\n{"name":"one"}`
/** More than is kept of a body. */
const long = `POST /v9/relay/a HTTP/1.1\r\n${closing}Content-Length: 100000\r\n\r\n${"a".repeat(100_000)}`
const paidGet = `GET /v9/relay/a HTTP/1.1\r\n${closing}\r\n`
const unplaced = /^HTTP\/1.1 503 [^]*"Overloaded"/
const unknown = /^HTTP\/1.1 503 [^]*"OutcomeUnknown"/

const patiently = { interval: 10, timeout: 20_000 }
const metric = async (name: string, url = scene.first.url): Promise<number> => {
  const lines = (await (await fetch(`${url}/metrics`)).text()).split("\n")
  return Number(lines.find((line) => line.startsWith(`${name} `))?.slice(name.length) ?? 0)
}
/** Runs `begin`, and completes when a metric of the first node has risen by so many. */
const untilRisen = async (name: string, by: number, begin: () => void): Promise<void> => {
  const before = await metric(name)
  begin()
  await expect.poll(() => metric(name), patiently).toBe(before + by)
}
/** Sends calls and waits until they wait for accounts to move. */
const putOff = async (...requests: ReadonlyArray<string>): Promise<ReadonlyArray<Promise<string>>> => {
  let answers: ReadonlyArray<Promise<string>> = []
  await untilRisen("tollgate_calls_passed_on_total{outcome=\"put_off\"}", requests.length, () => {
    answers = requests.map((request) => raw(request))
  })
  return answers
}

const here: RelayCall = (_caller, _agent, _dress, downstream) => downstream.reply(200, [], "here")

describe("an owner that nobody reaches", () => {
  it("is waited for, but not long; nothing was done", async () => {
    await restart({ hopMovedMs: 20 })
    await scene.nobody()
    for (const request of [get, post, paidGet]) expect(await raw(request)).toMatch(unplaced)
  })

  it.each([["a GET", get, "get"], ["a POST, whose body was not read", post, "create"]])("loses %s to whoever owns the account next", async (_, request, row) => {
    await scene.nobody()
    const [answered] = await putOff(request)
    scene.first.owner = undefined
    scene.cluster.move()
    expect(await answered).toMatch(/^HTTP\/1.1 20[01] /)
    expect(scene.first.fixture.calls).toMatchObject([{ row }])
  })

  it("is asked again when accounts move and its own do not", async () => {
    await restart({ hopMovedMs: 1_000 })
    await scene.nobody()
    const answered = raw(get)
    for (let i = 0; i < 5; i++) {
      await scene.fetch("/health")
      scene.cluster.move()
    }
    expect(await answered).toMatch(unplaced)
  })

  it("leaves a caller who goes meanwhile with nothing", async () => {
    await scene.nobody()
    const connection = await connect()
    await untilRisen("tollgate_calls_passed_on_total{outcome=\"put_off\"}", 1, () => connection.send(get))
    await untilRisen("tollgate_requests_total{row=\"fixture.things.get\",status=\"gone\"}", 1, () => connection.destroy())
    scene.first.owner = undefined
    scene.cluster.move()
    expect(scene.first.fixture.calls).toEqual([])
  })

  it("is given up when its host takes no connection", async () => {
    await restart({ hopConnectMs: 50, hopMovedMs: 20 })
    // A listener that never accepts: its queue is soon full, and then nobody is answered.
    const script = "const s=require('net').createServer().listen({port:0,host:'127.0.0.1',backlog:1},()=>{require('fs').writeSync(1,s.address().port+'\\n');Atomics.wait(new Int32Array(new SharedArrayBuffer(4)),0,0)})"
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] })
    try {
      const [port] = await once(child.stdout, "data")
      scene.first.owner = { nodeId: "full", host: "127.0.0.1", port: 0, hopPort: Number(String(port)) }
      // The first few get in and are silent.
      for (let i = 0; i < 8; i++) (await connect()).send(get)
      expect(await raw(post)).toMatch(unplaced)
    } finally {
      child.kill("SIGKILL")
    }
  })
})

describe("an owner that breaks off before its answer", () => {
  const breaks = [
    ["closes", (socket: { destroy(): void }) => socket.destroy()],
    ["answers garbage", (socket: { write(text: string): unknown }) => socket.write("SSH-2.0-OpenSSH_9\r\n")],
    ["answers two lengths", (socket: { write(text: string): unknown }) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")],
    ["switches protocols", (socket: { write(text: string): unknown }) => socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")],
    ["says nothing", () => undefined]
  ] as const

  it.each(breaks)("and %s may have acted: what changes something or costs money is told so", async (_, talk) => {
    await restart({ hopMovedMs: 20, hopFirstByteMs: 50 })
    const asked: Array<string> = []
    await scene.impostor((socket, text) => {
      asked.push(text)
      talk(socket)
    })
    for (const request of [post, paidGet]) {
      expect(await raw(request)).toMatch(unknown)
      scene.cluster.move()
    }
    expect(asked.filter((text) => / \/v9\//.test(text))).toHaveLength(2)
    expect(await raw(get)).toMatch(unplaced)
  })

  it("is asked for a GET once more where the account is next", async () => {
    await scene.impostor((socket) => {
      scene.first.owner = undefined
      scene.cluster.move()
      socket.destroy()
    })
    expect(await raw(get)).toMatch(/^HTTP\/1.1 200 /)
    expect(scene.first.fixture.calls).toHaveLength(1)
  })

  it("is never sent a body twice", async () => {
    await scene.impostor((socket) => {
      scene.first.owner = undefined
      scene.cluster.move()
      socket.destroy()
    })
    expect(await raw(post)).toMatch(unknown)
    expect(scene.first.fixture.calls).toEqual([])
  })
})

describe("an owner that breaks off in its answer", () => {
  it.each([
    ["closes", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true],
    ["closes between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true],
    ["breaks its chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", false],
    ["is silent", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false]
  ] as const)("and %s has its caller cut off, never served a whole", async (_, text, ends) => {
    await restart({ hopIdleMs: 50 })
    await scene.impostor((socket) => {
      socket.write(text)
      if (ends) socket.end()
    })
    const answer = await raw(`GET /v9/things/1 HTTP/1.1\r\n${placed}\r\n`)
    expect(answer).toMatch(/^HTTP\/1.1 200 OK\r\n[^]*half/)
    expect(answer).not.toMatch(/\r\n0\r\n\r\n$/)
  })
})

describe("a caller that leaves", () => {
  it("before the answer interrupts a GET at the owner, and never a POST", async () => {
    for (const [method, ending] of [["GET", "interrupted"], ["POST", "finished"]] as const) {
      const started = signal()
      const ended = signal<string>()
      const gate = Effect.runSync(Deferred.make<string>())
      scene.owner.fixture.wait = Effect.suspend(() => {
        started.fire()
        return Deferred.await(gate)
      }).pipe(Effect.tap(() => Effect.sync(() => ended.fire("finished"))), Effect.onInterrupt(() => Effect.sync(() => ended.fire("interrupted"))))
      const connection = await connect()
      connection.send(`${method} /v9/wait HTTP/1.1\r\n${placed}\r\n`)
      await started.promise
      connection.destroy()
      if (method === "POST") {
        await expect.poll(() => metric("tollgate_requests_total{row=\"fixture.wait.post\",status=\"gone\"}", scene.owner.url), patiently).toBeGreaterThan(0)
        await Effect.runPromise(Deferred.succeed(gate, "done"))
      }
      expect(await ended.promise).toBe(ending)
    }
  })

  it.each(["while it sends", "in the middle of the answer"])("%s is gone at the owner too", async (when) => {
    const begun = signal()
    const gone = signal()
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      downstream.onGone(() => gone.fire())
      downstream.stream(100, { chunk: () => begun.fire(), failed: () => undefined })
      if (when === "while it sends") return
      downstream.head(200, [], undefined)
      downstream.write(Buffer.from("half"))
    }
    const connection = await connect()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\n${placed}Content-Length: 5\r\n\r\nhe`)
    await begun.promise
    if (when !== "while it sends") await connection.until(({ text }) => text.includes("half"))
    connection.destroy()
    await gone.promise
  })

  it("that stands still in its body is told 408, and the owner that it is gone", async () => {
    await restart({ bodyIdleMs: 50 })
    const gone = signal()
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      downstream.onGone(() => gone.fire())
      downstream.stream(100, { chunk: () => undefined, failed: () => gone.fire() })
    }
    expect(await raw(`POST /v9/relay/a HTTP/1.1\r\n${placed}Content-Length: 5\r\n\r\nhe`)).toMatch(/^HTTP\/1.1 408 /)
    await gone.promise
  })

  it("that reads nothing is cut off, and the owner told", async () => {
    await restart({ readerStallMs: 50 })
    const gone = signal()
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      const push = (): void => { while (downstream.write(Buffer.alloc(1024 * 1024))); }
      downstream.onGone(() => gone.fire())
      downstream.onDrain(push)
      downstream.head(200, [], undefined)
      push()
    }
    const connection = await connect()
    connection.socket.pause()
    connection.send(`POST /v9/relay/a HTTP/1.1\r\n${placed}\r\n`)
    await gone.promise
  })
})

describe("a node that is not the owner, or no more", () => {
  it("passes nothing on a second time", async () => {
    await restart({ hopMovedMs: 20 })
    scene.owner.owner = scene.first.owner
    for (const request of [get, post, long, paidGet]) {
      const answer = await raw(request)
      expect(answer).toMatch(unplaced)
      expect(answer).not.toContain("x-tollgate")
    }
    expect([...scene.first.fixture.calls, ...scene.owner.fixture.calls]).toEqual([])
  })

  it("and finds that out when its kernel was asked is not asked again: it may have acted", async () => {
    let times = 0
    scene.owner.relay = (_caller, _agent, _dress, downstream) => {
      times++
      downstream.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 }))
    }
    const name = "tollgate_calls_passed_on_total{outcome=\"put_off\"}"
    const before = await metric(name)
    expect(await raw(paidGet)).toMatch(unplaced)
    expect([times, await metric(name)]).toEqual([1, before])
  })

  it("and stops refuses what is passed on; what is all here goes to the next owner", async () => {
    const gate = Effect.runSync(Deferred.make<string>())
    const started = signal()
    scene.owner.fixture.wait = Effect.suspend(() => {
      started.fire()
      return Deferred.await(gate)
    })
    const running = raw(`POST /v9/wait HTTP/1.1\r\n${closing}\r\n`)
    await started.promise
    const drained = scene.owner.drain()
    expect(await raw(long)).toMatch(/^HTTP\/1.1 503 [^]*"Draining"/)
    const answers = await putOff(get, post, paidGet)
    scene.first.owner = undefined
    scene.first.relay = here
    scene.cluster.move()
    expect((await Promise.all(answers)).map((answer) => answer.slice(9, 12))).toEqual(["200", "201", "200"])
    expect(scene.first.fixture.calls).toMatchObject([{ row: "get" }, { row: "create", input: { payload: { name: "one" } } }])
    await Effect.runPromise(Deferred.succeed(gate, "done"))
    await drained
    // What it was asked before is answered whole.
    expect(await running).toMatch(/^HTTP\/1.1 200 [^]*"done"$/)
  })

  it("and has died has its connections cut, once a node in order would have ended its calls", async () => {
    await restart({ drainMs: 30 })
    const asked = signal()
    await scene.impostor(() => asked.fire())
    const answered = raw(post)
    await asked.promise
    scene.cluster.move()
    scene.cluster.dead.add("impostor")
    scene.cluster.move()
    expect(await answered).toMatch(unknown)
  })
})

describe("a node that passes calls on", () => {
  it("has so many under way at one owner and no more", async () => {
    await restart({ hopCallsMax: 2 })
    const gate = Effect.runSync(Deferred.make<string>())
    let started = 0
    scene.owner.fixture.wait = Effect.suspend(() => {
      started++
      return Deferred.await(gate)
    })
    const running = [1, 2].map(() => raw(`POST /v9/wait HTTP/1.1\r\n${closing}\r\n`))
    await expect.poll(() => started, patiently).toBe(2)
    expect(await raw(get)).toMatch(unplaced)
    await Effect.runPromise(Deferred.succeed(gate, "done"))
    for (const answer of await Promise.all(running)) expect(answer).toMatch(/^HTTP\/1.1 200 /)
    expect(await raw(get)).toMatch(/^HTTP\/1.1 200 /)
  })

  it("waits for their answers when it stops", async () => {
    const gate = Effect.runSync(Deferred.make<string>())
    const started = signal()
    scene.owner.fixture.wait = Effect.suspend(() => {
      started.fire()
      return Deferred.await(gate)
    })
    const running = raw(`POST /v9/wait HTTP/1.1\r\n${closing}\r\n`)
    await started.promise
    const drained = scene.first.drain()
    await Effect.runPromise(Deferred.succeed(gate, "done"))
    await drained
    expect(await running).toMatch(/^HTTP\/1.1 200 [^]*"done"$/)
  })
})
