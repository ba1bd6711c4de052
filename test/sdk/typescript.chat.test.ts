/** Chat in the TypeScript SDK against a scripted gateway: what a session does when its socket ends, and what a reader gets. */
import { getActiveResourcesInfo } from "node:process"
import { setImmediate as turnOfLoop } from "node:timers/promises"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { AutxClient, type ChatChunk, type SessionOptions } from "../../sdk/typescript/src/AutxClient.ts"
import { ScriptedGateway, type ScriptedSocket } from "./ScriptedGateway.ts"

let gateway: ScriptedGateway
let client: AutxClient
/** Sessions told to the test, to be closed at its end. */
let closing: Array<() => Promise<void>>

beforeEach(async () => {
  vi.spyOn(Math, "random").mockReturnValue(0)
  gateway = await new ScriptedGateway().listen()
  client = new AutxClient({ apiKey: "autx_live_test", baseUrl: `${gateway.url}/v1/` })
  closing = []
})

afterEach(async () => {
  vi.restoreAllMocks()
  vi.useRealTimers()
  gateway.close()
  await Promise.all(closing.map((close) => close()))
})

const opened = (facts: object = {}): object => ({
  type: "session", session_id: "ses_1", agent: { id: "a1", ticker: "SUMM", name: "Summ", service_price: "0.01" }, credits_reserved: "0.05", resumed: false, message_count: 0, ...facts
})
const resumed = (facts: object = {}): object => opened({ resumed: true, discontinuity: false, ...facts })
const ending = (id: string, order = "o1"): ReadonlyArray<object> => [
  { type: "done", order_id: order, session_id: "ses_1", output_hash: "sha256:00", message_index: 1, id },
  { type: "billing", order_id: order, amount_charged: "0.01", credits_remaining: "9.94", credits_reserved: "0.04", session_total: "0.01", id }
]
const chunks = (id: string, ...texts: ReadonlyArray<string>): ReadonlyArray<object> => texts.map((data) => ({ type: "chunk", data, id }))

const sessionOf = (options: SessionOptions = {}) => {
  const session = client.session("SUMM", options)
  closing.push(() => session.close())
  return session
}

/** The next socket, authenticated. */
const accepted = async (frame: object = opened()): Promise<ScriptedSocket> => {
  const socket = await gateway.socket()
  expect(await socket.frame()).toMatchObject({ type: "auth", token: "autx_live_test" })
  socket.send(frame)
  return socket
}

const read = async (answer: AsyncIterable<ChatChunk>): Promise<string> => {
  let text = ""
  for await (const { delta } of answer) text += delta
  return text
}

describe("a turn", () => {
  it("is sent once the session is open, is read delta by delta, and has its bill at the end", async () => {
    const session = sessionOf()
    const turn = session.send("Hello")
    const socket = await gateway.socket()
    expect(socket.path).toBe("/v1/ws/agent/SUMM")
    expect(await socket.frame()).toEqual({ type: "auth", token: "autx_live_test" })
    socket.send(opened())
    const message = await socket.frame()
    expect(message).toEqual({ type: "message", prompt: "Hello", id: expect.stringMatching(/^.{16,}$/) })
    const deltas: Array<string> = []
    const reading = (async () => {
      for await (const { delta } of turn) {
        deltas.push(delta)
        if (delta === "The ") socket.send(...chunks(message.id, "Federal ", "Reserve"), ...ending(message.id))
      }
    })()
    socket.send(...chunks(message.id, "The "))
    await reading
    expect(deltas).toEqual(["The ", "Federal ", "Reserve"])
    expect(turn.text()).toBe("The Federal Reserve")
    expect(turn).toMatchObject({ costUsd: 0.01, amountCharged: "0.01", orderId: "o1", outputHash: "sha256:00", messageIndex: 1, isCancelled: false })
    expect(session).toMatchObject({ sessionId: "ses_1", creditsRemaining: "9.94", creditsReserved: "0.04", sessionTotal: "0.01", agent: { ticker: "SUMM" } })
  })

  it("that is left early is cancelled, and its session takes the next one", async () => {
    const session = sessionOf()
    const turn = session.send("Hello")
    const socket = await accepted()
    const { id } = await socket.frame()
    socket.send(...chunks(id, "The ", "Federal"))
    const leaving = (async () => {
      for await (const _ of turn) break
    })()
    expect(await socket.frame()).toEqual({ type: "cancel" })
    socket.send(...cancelled(id))
    await leaving
    expect(turn).toMatchObject({ isCancelled: true, costUsd: 0 })
    const next = session.send("Again", { id: "mine" })
    expect(await socket.frame()).toEqual({ type: "message", prompt: "Again", id: "mine" })
    socket.send(...chunks("mine", "Yes"), ...ending("mine"))
    expect(await read(next)).toBe("Yes")
  })

  it("whose cancel comes too late is charged, and says so", async () => {
    const turn = sessionOf().send("Hello")
    const socket = await accepted()
    const { id } = await socket.frame()
    const over = turn.cancel()
    expect(await socket.frame()).toEqual({ type: "cancel" })
    socket.send(...chunks(id, "All of it"), ...ending(id))
    await over
    expect(await read(turn)).toBe("All of it")
    expect(turn).toMatchObject({ isCancelled: false, costUsd: 0.01 })
  })

  it("that is refused fails with the gateway's code and words, and the session lives on", async () => {
    const session = sessionOf()
    const turn = session.send("Hello")
    const socket = await accepted()
    const { id } = await socket.frame()
    socket.send(...chunks(id, "Half"), { type: "error", code: "agent_error", detail: "The agent broke off", fatal: false, retry_after: 2, id })
    const deltas: Array<string> = []
    await expect((async () => {
      for await (const { delta } of turn) deltas.push(delta)
    })()).rejects.toMatchObject({ name: "AutxError", message: "Chat error: agent_error", code: "agent_error", detail: "The agent broke off", retryAfter: 2 })
    expect(deltas).toEqual(["Half"])
    session.send("Again", { id: "second" })
    expect(await socket.frame()).toMatchObject({ prompt: "Again" })
  })

  it("keeps a second one from being sent while it runs", async () => {
    const session = sessionOf()
    session.send("Hello")
    expect(() => session.send("Again")).toThrow("Chat error: turn_in_progress")
  })

  it("whose reader stops is cancelled when 4 Mi characters wait, and fails its reader", async () => {
    const turn = sessionOf().send("Hello")
    const socket = await accepted()
    const { id } = await socket.frame()
    const part = "x".repeat(512 * 1024)
    for (let count = 0; count < 9; count++) socket.send(...chunks(id, part))
    expect(await socket.frame()).toEqual({ type: "cancel" })
    socket.send(...cancelled(id))
    let chars = 0
    await expect((async () => {
      for await (const { delta } of turn) chars += delta.length
    })()).rejects.toMatchObject({ code: "slow_consumer" })
    expect(chars).toBe(4 * 1024 * 1024)
  })
})

/** How the gateway says that a turn was cancelled. */
const cancelled = (id: string): ReadonlyArray<object> => [{ type: "notice", code: "turn_cancelled", detail: "The turn was cancelled. Nothing was charged", late: false, id }]

describe("a session whose socket ends", () => {
  it.each([1001, 1006, 1011, 1013, 4408, 4429, 4503])("with %i is resumed, and the answer goes on where it was", async (code) => {
    const events: Array<unknown> = []
    const session = sessionOf({ onReconnecting: ({ attempt, error }) => events.push([attempt, error.closeCode]), onResumed: (facts) => events.push(facts) })
    const turn = session.send("Hello")
    const first = await accepted()
    const { id } = await first.frame()
    first.send(...chunks(id, "The ", "Fed"))
    if (code === 1006) first.cut()
    else first.close(code)
    const second = await gateway.socket()
    expect(await second.frame()).toEqual({ type: "auth", token: "autx_live_test", session_id: "ses_1" })
    second.send(resumed({ replayed_from: 0, message_count: 3 }), ...chunks(id, "The Federal", " Reserve"), ...ending(id))
    expect(await read(turn)).toBe("The Federal Reserve")
    expect(events).toEqual([[1, code], { discontinuity: false, messageCount: 3 }])
    expect(second.unread).toBe(0)
  })

  it.each([4400, 4401, 4402, 4403, 4404, 4409, 4410, 1000, 1009])("with %i is not resumed: its turn fails with what the error frame said", async (code) => {
    const onClosed = vi.fn()
    const session = sessionOf({ onClosed })
    const turn = session.send("Hello")
    const socket = await accepted()
    await socket.frame()
    socket.send({ type: "error", code: "some_reason", detail: "Because", fatal: true })
    socket.close(code)
    await expect(read(turn)).rejects.toMatchObject({ code: "some_reason", detail: "Because", closeCode: code })
    expect(onClosed).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ closeCode: code }))
    expect(() => session.send("Again")).toThrow("Chat error: some_reason")
    await expect(session.open()).rejects.toThrow("Chat error: some_reason")
    expect(gateway.unclaimed).toBe(0)
  })

  it("before its message was answered sends it again with the same id, and gets what had finished once", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    const message = await first.frame()
    first.send(...chunks(message.id, "The Fed"))
    first.cut()
    const second = await accepted(resumed({ message_count: 1 }))
    expect(await second.frame()).toEqual(message)
    second.send(...chunks(message.id, "The ", "Federal ", "Reserve"), ...ending(message.id))
    expect(await read(turn)).toBe("The Federal Reserve")
    expect(turn.costUsd).toBe(0.01)
  })

  it("between its answer and its bill asks for the bill", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    const { id } = await first.frame()
    const [done, billing] = ending(id)
    first.send(...chunks(id, "Yes"), done!)
    first.cut()
    const second = await accepted(resumed({ message_count: 1 }))
    expect((await second.frame()).id).toBe(id)
    second.send(...chunks(id, "Yes"), done!, billing!)
    expect(await read(turn)).toBe("Yes")
    expect(turn.costUsd).toBe(0.01)
  })

  it("anywhere in the answer delivers each character once, whatever the pieces are", async () => {
    const answer = "Zwölf Boxkämpfer jagen 🦊🦊 quer über den Sylter Deich"
    const pieces = (size: number): ReadonlyArray<string> => answer.match(new RegExp(`[^]{1,${size}}`, "g"))!
    const session = sessionOf()
    let socket: ScriptedSocket | undefined
    for (let cut = 0; cut <= answer.length; cut += 5) {
      const id = `m${cut}`
      const turn = session.send("Hello", { id })
      socket ??= await accepted()
      await socket.frame()
      const reading = read(turn)
      socket.send(...chunks(id, ...(answer.slice(0, cut).match(/[^]{1,3}/g) ?? [])))
      socket.close(1011)
      socket = await accepted(resumed({ replayed_from: 0 }))
      socket.send(...chunks(id, ...pieces(1 + cut % 7)), ...ending(id, `o${cut}`))
      expect(await reading, `cut after ${cut}`).toBe(answer)
    }
  })

  it("and that comes back with another answer begins that one anew, and says so", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    const { id } = await first.frame()
    first.send(...chunks(id, "Once upon a time"))
    first.cut()
    const second = await accepted(resumed({ discontinuity: true }))
    await second.frame()
    second.send(...chunks(id, "Once upon ", "another ", "day"), ...ending(id))
    const got: Array<ChatChunk> = []
    for await (const chunk of turn) got.push(chunk)
    expect(got).toEqual([{ delta: "Once upon a time" }, { delta: "Once upon another ", restarted: true }, { delta: "day" }])
    expect(turn.text()).toBe("Once upon another day")
  })

  it("and that comes back with a shorter answer begins that one anew", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    const { id } = await first.frame()
    first.send(...chunks(id, "Once upon a time"))
    first.cut()
    const second = await accepted(resumed({ discontinuity: true }))
    await second.frame()
    second.send(...chunks(id, "Once"), ...ending(id))
    const got: Array<ChatChunk> = []
    for await (const chunk of turn) got.push(chunk)
    expect(got).toEqual([{ delta: "Once upon a time" }, { delta: "Once", restarted: true }])
  })

  it("and is told the end of the turn before once more sends its message after that", async () => {
    const session = sessionOf()
    const before = session.send("Hello", { id: "one" })
    const first = await accepted()
    await first.frame()
    first.send(...chunks("one", "Yes"), ...ending("one"))
    expect(await read(before)).toBe("Yes")
    const turn = session.send("Again", { id: "two" })
    await first.frame()
    first.cut()
    const second = await accepted(resumed({ replayed_from: 0, session_total: "0.01" }))
    second.send(...chunks("one", "Yes"), ...ending("one"))
    expect(await second.frame()).toEqual({ type: "message", prompt: "Again", id: "two" })
    second.send(...chunks("two", "No"), ...ending("two", "o2"))
    expect(await read(turn)).toBe("No")
    expect(turn.orderId).toBe("o2")
  })

  it("while a cancel is on its way cancels again what still runs", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    const { id } = await first.frame()
    const over = turn.cancel()
    expect(await first.frame()).toEqual({ type: "cancel" })
    first.cut()
    const second = await accepted(resumed({ replayed_from: 0 }))
    expect(await second.frame()).toEqual({ type: "cancel" })
    second.send(...cancelled(id))
    await over
    expect(turn.isCancelled).toBe(true)
  })

  it("while a cancel is on its way does not send a message again that runs no more", async () => {
    const turn = sessionOf().send("Hello")
    const first = await accepted()
    await first.frame()
    const over = turn.cancel()
    await first.frame()
    first.cut()
    const second = await accepted(resumed())
    await over
    expect(await read(turn)).toBe("")
    expect(second.unread).toBe(0)
  })

  it("is not tried again before the gateway's retry_after", async () => {
    let delay: number | undefined
    const session = sessionOf({ onReconnecting: ({ delayMs }) => { delay = delayMs } })
    const opening = session.open()
    const first = await accepted()
    await opening
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
    first.send({ type: "error", code: "server_shutdown", detail: "Restarting", fatal: true, retry_after: 7.5 })
    first.close(1001)
    await vi.waitUntil(() => delay !== undefined)
    expect(delay).toBe(7_500)
    vi.advanceTimersByTime(7_499)
    await turnOfLoop()
    expect(gateway.unclaimed).toBe(0)
    vi.advanceTimersByTime(1)
    vi.useRealTimers()
    await accepted(resumed())
  })

  it("is tried again with full jitter, over 4 s and then 8, until the gateway has given the session up after 120 s", async () => {
    vi.mocked(Math.random).mockReturnValue(0.5)
    const delays: Array<number> = []
    let error: unknown
    const session = sessionOf({ onReconnecting: ({ delayMs }) => delays.push(delayMs), onClosed: (reason) => { error = reason } })
    const turn = session.send("Hello")
    const socket = await accepted()
    await socket.frame()
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] })
    gateway.refuse = (socket) => socket.destroy()
    socket.cut()
    while (error === undefined) {
      vi.advanceTimersByTime(delays.at(-1) ?? 0)
      const tried = delays.length
      await vi.waitUntil(() => error !== undefined || delays.length > tried)
    }
    expect(delays.slice(0, 7)).toEqual([2_000, 4_000, 4_000, 4_000, 4_000, 4_000, 4_000])
    expect(delays.reduce((sum, delay) => sum + delay)).toBeGreaterThan(112_000)
    expect(delays.reduce((sum, delay) => sum + delay)).toBeLessThanOrEqual(120_000)
    await expect(read(turn)).rejects.toMatchObject({ code: "connection_lost", closeCode: 1006 })
  })
})

describe("a session", () => {
  it("that can't be opened gives up after maxRetries further tries, and rejects what waits for it", async () => {
    let refused = 0
    gateway.refuse = (socket) => {
      refused++
      socket.end("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 24\r\n\r\n{\"detail\": \"Restarting\"}")
    }
    await expect(client.createSession("SUMM")).rejects.toMatchObject({ closeCode: 4503, detail: "Restarting" })
    expect(refused).toBe(4)
  })

  it("that would have to wait long to be opened is not waited for", async () => {
    const opening = client.createSession("SUMM")
    const refused = expect(opening).rejects.toMatchObject({ code: "agent_paused", retryAfter: 60 })
    const socket = await gateway.socket()
    socket.send({ type: "error", code: "agent_paused", detail: "The agent SUMM is paused", fatal: true, retry_after: 60 })
    socket.close(4503)
    await refused
  })

  it.each([[403, 4403], [404, 4404], [501, 4501]])("whose upgrade is answered with %i is not tried again", async (status, closeCode) => {
    let refused = 0
    gateway.refuse = (socket) => {
      refused++
      socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`)
    }
    await expect(client.createSession("SUMM")).rejects.toMatchObject({ closeCode })
    expect(refused).toBe(1)
  })

  it("that was left is taken up by its id, with the turn that runs in it", async () => {
    const session = sessionOf({ sessionId: "ses_1" })
    const opening = session.open()
    const socket = await gateway.socket()
    expect(await socket.frame()).toMatchObject({ session_id: "ses_1" })
    socket.send(resumed({ replayed_from: 0, message_count: 2 }), ...chunks("theirs", "Still ", "here"))
    await opening
    const turn = session.turn!
    expect(() => session.send("Again")).toThrow("turn_in_progress")
    socket.send(...ending("theirs"))
    expect(await read(turn)).toBe("Still here")
    expect(session.turn).toBeUndefined()
  })

  it("that was left with a turn running refuses a message that was written meanwhile", async () => {
    const session = sessionOf({ sessionId: "ses_1" })
    const turn = session.send("Hello")
    const socket = await accepted(resumed({ replayed_from: 0 }))
    await expect(read(turn)).rejects.toMatchObject({ code: "turn_in_progress" })
    socket.send(...chunks("theirs", "Still here"), ...ending("theirs"))
    expect(await read(session.turn!)).toBe("Still here")
  })

  it("tells notices, and ignores frames that it does not know", async () => {
    const onNotice = vi.fn()
    const session = sessionOf({ onNotice })
    const turn = session.send("Hello", { id: "m" })
    const socket = await accepted()
    await socket.frame()
    socket.send({ type: "notice", code: "low_credits", detail: "Little is left" }, { type: "brand_new" }, ...chunks("other", "not ours"), ...chunks("m", "Yes"), ...ending("m"))
    expect(await read(turn)).toBe("Yes")
    expect(onNotice).toHaveBeenCalledExactlyOnceWith({ type: "notice", code: "low_credits", detail: "Little is left" })
  })

  it("that idles pings every 20 s, and takes up another socket when nobody answers", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] })
    const opening = sessionOf().open()
    const first = await accepted()
    await opening
    for (let pings = 0; pings < 3; pings++) {
      vi.advanceTimersByTime(20_000)
      expect(await first.frame()).toEqual({ type: "ping" })
      first.send({ type: "pong" })
      await answered(first)
    }
    vi.advanceTimersByTime(20_000)
    expect(await first.frame()).toEqual({ type: "ping" })
    vi.advanceTimersByTime(20_000)
    vi.advanceTimersByTime(1)
    await accepted(resumed())
  })

  it("that is closed asks the gateway, waits for it, and leaves no socket and no timer behind", async () => {
    const before = getActiveResourcesInfo().filter((resource) => resource === "Timeout").length
    const onClosed = vi.fn()
    const session = sessionOf({ onClosed })
    await Promise.all([session.open(), accepted().then(async (socket) => {
      expect(await socket.frame()).toEqual({ type: "close" })
      socket.close(1000)
      await socket.closed
    }), opening(session).then(() => session.close())])
    expect(onClosed).toHaveBeenCalledExactlyOnceWith(undefined)
    expect(() => session.send("Again")).toThrow("session_closed")
    await session.close()
    expect(getActiveResourcesInfo().filter((resource) => resource === "Timeout").length).toBeLessThanOrEqual(before)
  })

  it("that is closed while its connection is gone is closed by REST, its turn stopped", async () => {
    gateway.answer = (_, response) => void response.writeHead(204).end()
    let isGone = (): void => {}
    const gone = new Promise<void>((done) => { isGone = done })
    const session = sessionOf({ onReconnecting: isGone })
    const turn = session.send("Hello")
    const socket = await accepted()
    await socket.frame()
    vi.mocked(Math.random).mockReturnValue(1)
    gateway.refuse = (socket) => socket.destroy()
    socket.cut()
    await gone
    await session.close()
    expect(gateway.asked).toEqual(["DELETE /v1/sessions/ses_1"])
    expect(await read(turn)).toBe("")
    expect(turn.isCancelled).toBe(true)
  })

  it("that was never opened needs no gateway to be closed", async () => {
    const session = client.session("SUMM")
    await session.close()
    expect(() => session.send("Hello")).toThrow("session_closed")
    expect(gateway.unclaimed).toBe(0)
  })

  it("that nobody reads fails without an unhandled rejection", async () => {
    const onRejection = vi.fn()
    process.on("unhandledRejection", onRejection)
    const session = sessionOf()
    const turn = session.send("Hello")
    const socket = await accepted()
    await socket.frame()
    socket.close(4410)
    await turn.cancel()
    await turnOfLoop()
    process.off("unhandledRejection", onRejection)
    expect(onRejection).not.toHaveBeenCalled()
  })

  it("is closed at the end of its scope", async () => {
    const session = sessionOf()
    const opening = session.open()
    const socket = await accepted()
    await opening
    const disposing = session[Symbol.asyncDispose]()
    expect(await socket.frame()).toEqual({ type: "close" })
    socket.close(1000)
    await disposing
  })
})

/** Until it is open. */
const opening = (session: { readonly open: () => Promise<unknown> }): Promise<unknown> => session.open()

/** Until the client has heard all that was sent: it answers a ping of the protocol in order. */
const answered = async (socket: ScriptedSocket): Promise<void> => {
  socket.write(Buffer.of(0x89, 0))
  expect((await socket.raw()).opcode).toBe(10)
}

describe("a stream", () => {
  it("is one turn in a session of its own, which it closes at its end", async () => {
    const stream = client.stream("SUMM", "Hello")
    expect(gateway.unclaimed).toBe(0)
    const reading = read(stream)
    const socket = await accepted()
    const { id, prompt } = await socket.frame()
    expect(prompt).toBe("Hello")
    socket.send(...chunks(id, "Yes"), ...ending(id))
    expect(await socket.frame()).toEqual({ type: "close" })
    socket.close(1000)
    expect(await reading).toBe("Yes")
    expect(stream).toMatchObject({ costUsd: 0.01, amountCharged: "0.01", orderId: "o1", sessionId: "ses_1" })
    expect(stream.text()).toBe("Yes")
  })

  it("that is left early cancels its turn and closes its session", async () => {
    const stream = client.stream("SUMM", "Hello")
    const leaving = (async () => {
      for await (const _ of stream) break
    })()
    const socket = await accepted()
    const { id } = await socket.frame()
    socket.send(...chunks(id, "Yes"))
    expect(await socket.frame()).toEqual({ type: "cancel" })
    socket.send(...cancelled(id))
    expect(await socket.frame()).toEqual({ type: "close" })
    socket.close(1000)
    await leaving
    expect(stream).toMatchObject({ costUsd: 0, orderId: undefined })
  })

  it("that is refused fails its loop, and closes its session", async () => {
    const reading = read(client.stream("SUMM", "Hello"))
    const refused = expect(reading).rejects.toMatchObject({ code: "insufficient_credits" })
    const socket = await gateway.socket()
    await socket.frame()
    socket.send({ type: "error", code: "insufficient_credits", detail: "Insufficient credits", fatal: true })
    socket.close(4402)
    await refused
    await socket.closed
  })
})
