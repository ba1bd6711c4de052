/** What a chat session of the TypeScript SDK does when its socket ends, against a scripted gateway. */
import { setImmediate as turnOfLoop } from "node:timers/promises"
import { describe, expect, it, vi } from "vitest"
import type { ChatChunk } from "../../sdk/typescript/src/AutxClient.ts"
import { cancelled, chunks, ending, read, resumed, useScriptedChat } from "./ScriptedChat.ts"
import type { ScriptedSocket } from "./ScriptedGateway.ts"

const chat = useScriptedChat()
const { accepted, sessionOf } = chat

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
    const second = await chat.gateway.socket()
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
    expect(chat.gateway.unclaimed).toBe(0)
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
    expect(chat.gateway.unclaimed).toBe(0)
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
    chat.gateway.refuse = (socket) => socket.destroy()
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
