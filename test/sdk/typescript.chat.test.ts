/** Chat in the TypeScript SDK against a scripted gateway: turns, sessions and streams, and what their readers get. */
import { getActiveResourcesInfo } from "node:process"
import { setImmediate as turnOfLoop } from "node:timers/promises"
import { describe, expect, it, vi } from "vitest"
import { cancelled, chunks, ending, opened, read, resumed, useScriptedChat } from "./ScriptedChat.ts"
import type { ScriptedSocket } from "./ScriptedGateway.ts"

const chat = useScriptedChat()
const { accepted, sessionOf } = chat

describe("a turn", () => {
  it("is sent once the session is open, is read delta by delta, and has its bill at the end", async () => {
    const session = sessionOf()
    const turn = session.send("Hello")
    const socket = await chat.gateway.socket()
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

describe("a session", () => {
  it("that can't be opened gives up after maxRetries further tries, and rejects what waits for it", async () => {
    let refused = 0
    chat.gateway.refuse = (socket) => {
      refused++
      socket.end("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 24\r\n\r\n{\"detail\": \"Restarting\"}")
    }
    await expect(chat.client.createSession("SUMM")).rejects.toMatchObject({ closeCode: 4503, detail: "Restarting" })
    expect(refused).toBe(4)
  })

  it("that would have to wait long to be opened is not waited for", async () => {
    const opening = chat.client.createSession("SUMM")
    const refused = expect(opening).rejects.toMatchObject({ code: "agent_paused", retryAfter: 60 })
    const socket = await chat.gateway.socket()
    socket.send({ type: "error", code: "agent_paused", detail: "The agent SUMM is paused", fatal: true, retry_after: 60 })
    socket.close(4503)
    await refused
  })

  it.each([[403, 4403], [404, 4404], [501, 4501]])("whose upgrade is answered with %i is not tried again", async (status, closeCode) => {
    let refused = 0
    chat.gateway.refuse = (socket) => {
      refused++
      socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 0\r\n\r\n`)
    }
    await expect(chat.client.createSession("SUMM")).rejects.toMatchObject({ closeCode })
    expect(refused).toBe(1)
  })

  it("that was left is taken up by its id, with the turn that runs in it", async () => {
    const session = sessionOf({ sessionId: "ses_1" })
    const opening = session.open()
    const socket = await chat.gateway.socket()
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
    chat.gateway.answer = (_, response) => void response.writeHead(204).end()
    let isGone = (): void => {}
    const gone = new Promise<void>((done) => { isGone = done })
    const session = sessionOf({ onReconnecting: isGone })
    const turn = session.send("Hello")
    const socket = await accepted()
    await socket.frame()
    vi.mocked(Math.random).mockReturnValue(1)
    chat.gateway.refuse = (socket) => socket.destroy()
    socket.cut()
    await gone
    await session.close()
    expect(chat.gateway.asked).toEqual(["DELETE /v1/sessions/ses_1"])
    expect(await read(turn)).toBe("")
    expect(turn.isCancelled).toBe(true)
  })

  it("that was never opened needs no gateway to be closed", async () => {
    const session = chat.client.session("SUMM")
    await session.close()
    expect(() => session.send("Hello")).toThrow("session_closed")
    expect(chat.gateway.unclaimed).toBe(0)
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
    const stream = chat.client.stream("SUMM", "Hello")
    expect(chat.gateway.unclaimed).toBe(0)
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
    const stream = chat.client.stream("SUMM", "Hello")
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
    const reading = read(chat.client.stream("SUMM", "Hello"))
    const refused = expect(reading).rejects.toMatchObject({ code: "insufficient_credits" })
    const socket = await chat.gateway.socket()
    await socket.frame()
    socket.send({ type: "error", code: "insufficient_credits", detail: "Insufficient credits", fatal: true })
    socket.close(4402)
    await refused
    await socket.closed
  })
})
