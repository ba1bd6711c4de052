import { describe, expect, it } from "vitest"
import { type Exchanged, dueOf, fitHistory, messagesOf } from "../../../src/domain/chat.ts"

/** Turns of which each takes two bytes. */
const turns = (count: number): ReadonlyArray<Exchanged> => Array.from({ length: count }, (_, at) => ({ prompt: String.fromCharCode(97 + at), answer: String.fromCharCode(65 + at) }))
const promptsOf = (turns: ReadonlyArray<Exchanged>): string => turns.map(({ prompt }) => prompt).join("")

describe("what of a session's past goes to the agent", () => {
  it("is all of it, in its order, while that fits", () => {
    expect(promptsOf(fitHistory(turns(5), { messagesMax: 10, bytesMax: 10 }))).toBe("abcde")
    expect(fitHistory([], { messagesMax: 10, bytesMax: 10 })).toEqual([])
  })

  it("loses its oldest turns to the bound on messages, which is never passed by half a turn", () => {
    expect(promptsOf(fitHistory(turns(5), { messagesMax: 4, bytesMax: 100 }))).toBe("de")
    expect(promptsOf(fitHistory(turns(5), { messagesMax: 5, bytesMax: 100 }))).toBe("de")
    expect(fitHistory(turns(5), { messagesMax: 1, bytesMax: 100 })).toEqual([])
    expect(fitHistory(turns(5), { messagesMax: 0, bytesMax: 100 })).toEqual([])
  })

  it("loses its oldest turns to the bound on bytes, and none is cut", () => {
    expect(promptsOf(fitHistory(turns(5), { messagesMax: 50, bytesMax: 6 }))).toBe("cde")
    expect(promptsOf(fitHistory(turns(5), { messagesMax: 50, bytesMax: 7 }))).toBe("cde")
    expect(fitHistory(turns(5), { messagesMax: 50, bytesMax: 1 })).toEqual([])
  })

  it("counts bytes as UTF-8 has them", () => {
    const [first, last] = [{ prompt: "ü", answer: "€" }, { prompt: "😀", answer: "" }]
    expect(fitHistory([first, last], { messagesMax: 50, bytesMax: 9 })).toEqual([first, last])
    expect(fitHistory([first, last], { messagesMax: 50, bytesMax: 8 })).toEqual([last])
    expect(fitHistory([first, last], { messagesMax: 50, bytesMax: 3 })).toEqual([])
  })

  it("has no gap: a turn that doesn't fit keeps out those before it, small as they are", () => {
    const long = { prompt: "x".repeat(100), answer: "" }
    expect(promptsOf(fitHistory([...turns(1), long, ...turns(2)], { messagesMax: 50, bytesMax: 20 }))).toBe("ab")
  })

  it("becomes a prompt of the user and an answer of the assistant for each turn", () => {
    expect(messagesOf(turns(2))).toEqual([
      { role: "user", content: "a" }, { role: "assistant", content: "A" }, { role: "user", content: "b" }, { role: "assistant", content: "B" }
    ])
  })
})

describe("a session that nobody uses", () => {
  const bounds = { idleMs: 1_000, resumeMs: 100 }
  const due = (idleness: Partial<Parameters<typeof dueOf>[0]>, nowMs: number) => dueOf({ droppedAtMs: undefined, usedAtMs: 0, turnRunning: false, ...idleness }, bounds, nowMs)

  it("is hung up once its socket was silent for the whole time", () => {
    expect([due({}, 999), due({}, 1_000), due({ usedAtMs: 500 }, 1_499), due({ usedAtMs: 500 }, 1_500)]).toEqual(["nothing", "hangUp", "nothing", "hangUp"])
  })

  it("is closed once nobody came back in time, however shortly before it was used", () => {
    expect([due({ droppedAtMs: 50, usedAtMs: 50 }, 149), due({ droppedAtMs: 50, usedAtMs: 50 }, 150), due({ droppedAtMs: 50 }, 149)]).toEqual(["nothing", "close", "nothing"])
  })

  it("is left alone while a turn runs, with and without a socket", () => {
    expect([due({ turnRunning: true }, 1e9), due({ turnRunning: true, droppedAtMs: 0 }, 1e9)]).toEqual(["nothing", "nothing"])
  })
})
