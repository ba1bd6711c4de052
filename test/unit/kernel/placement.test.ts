/** Accounts that are lent and borrowed, by the clock: what happens when nobody gives them back. */
import { Effect, Exit } from "effect"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { Directory } from "../../../src/actor/Directory.ts"
import type { Place } from "../../../src/actor/Placement.ts"
import { limits } from "../../../src/config.ts"
import type { Account } from "../../../src/domain/account.ts"
import type { AccountId } from "../../../src/domain/ids.ts"
import type { Holds } from "../../../src/kernel/Holds.ts"
import { Borrowing } from "../../../src/kernel/placement/Borrowing.ts"
import { CommitsInFlight } from "../../../src/kernel/placement/CommitsInFlight.ts"
import { Handover } from "../../../src/kernel/placement/Handover.ts"
import { Lending } from "../../../src/kernel/placement/Lending.ts"
import { log } from "../../../src/telemetry/log.ts"

const id = "an account" as AccountId
const peer: Place = { nodeId: "other", host: "10.0.0.2", port: 1, hopPort: 2 }
const nothingHeld = { holdsOf: () => new Map() } as unknown as Holds["Service"]

const open = (place: () => Place = () => "local") => {
  let loads = 0
  const directory = new Directory<AccountId, Account, never>({
    name: "account", load: () => Effect.sync(() => ({ token: BigInt(++loads), orders: new Map() }) as Account), tokenOf: ({ token }) => token, isIdle: () => true, passivated: () => {}
  }, place, { ...limits, placementWaitMs: 60_000 })
  const commits = new CommitsInFlight()
  return { directory, commits, lending: new Lending(directory, commits, nothingHeld), token: () => Effect.runPromise(directory.ask(id, ({ token }) => token)), loads: () => loads }
}

beforeEach(() => {
  log.level = "silent"
  vi.useFakeTimers()
})
afterEach(() => { vi.useRealTimers() })

describe("an account that was lent", () => {
  it("is ours again when the borrower does not give it back in time, and not a moment before", async () => {
    const { lending, token, loads } = open()
    expect(await token()).toBe(1n)
    await Effect.runPromise(lending.lendOut(id, "b"))
    const [waiting, over] = [token(), lending.over(id)]
    await vi.advanceTimersByTimeAsync(limits.borrowMs - 1)
    expect(loads()).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    await over
    expect(await waiting).toBe(2n)
    lending.takeBack(id, "b")
    expect(await token()).toBe(2n)
  })

  it("is lent for the whole time again when the borrower asks again", async () => {
    const { lending, token, loads } = open()
    await Effect.runPromise(lending.lendOut(id, "b"))
    await vi.advanceTimersByTimeAsync(limits.borrowMs - 1)
    await Effect.runPromise(lending.lendOut(id, "b"))
    const waiting = token()
    await vi.advanceTimersByTimeAsync(limits.borrowMs - 1)
    expect(loads()).toBe(0)
    lending.takeBack(id, "b")
    expect(await waiting).toBe(1n)
  })

  it("is not handed out while its commits are under way, and not at all when that takes too long", async () => {
    const { lending, commits } = open()
    commits.begun(id)
    commits.begun(id)
    let isLent = false
    const lent = Effect.runPromise(lending.lendOut(id, "b")).then(() => { isLent = true })
    commits.ended(id)
    await vi.advanceTimersByTimeAsync(1)
    expect(isLent).toBe(false)
    commits.ended(id)
    await lent
    lending.takeBack(id, "b")
    commits.begun(id)
    const late = Effect.runPromiseExit(lending.lendOut(id, "b"))
    await vi.advanceTimersByTimeAsync(limits.borrowMs)
    commits.ended(id)
    expect(Exit.isFailure(await late)).toBe(true)
  })
})

describe("an account that was borrowed", () => {
  it("is decided on by nobody here when the change takes too long, and given back all the same", async () => {
    const { directory, commits, token } = open(() => peer)
    const given: Array<string> = []
    const borrowing = new Borrowing(directory, () => peer, commits, {
      lease: () => Effect.die("not asked"), borrow: () => Effect.succeed(7n), giveBack: (_, nodeId) => Effect.sync(() => { given.push(nodeId) })
    }, "b")
    const change = Effect.runPromiseExit(borrowing.borrowed(id, Effect.promise(async () => {
      const first = await token()
      expect(borrowing.heldElsewhere(id)).toBe(7n)
      await vi.advanceTimersByTimeAsync(limits.borrowMs)
      return [first, await token().then(() => "decided", () => "refused")]
    })))
    expect(await change).toEqual(Exit.succeed([1n, "refused"]))
    await vi.waitFor(() => expect([given, borrowing.heldElsewhere(id)]).toEqual([["b"], undefined]))
  })
})

describe("a handover", () => {
  it("lets a borrower end its change, but does not wait for it long", async () => {
    const { directory, commits, lending } = open()
    const handover = new Handover(directory, commits, lending, () => [], async () => {})
    for (const isBack of [true, false]) {
      await Effect.runPromise(lending.lendOut(id, "b"))
      let isOver = false
      const over = handover.leave(() => true).then(() => { isOver = true })
      await vi.advanceTimersByTimeAsync(1)
      expect(isOver).toBe(false)
      if (isBack) lending.takeBack(id, "b")
      await vi.advanceTimersByTimeAsync(isBack ? 1 : limits.handoffMs / 2)
      await over
      expect(isOver).toBe(true)
    }
  })

  it("ends at its time, whatever has not settled by then", async () => {
    const { directory, commits, lending, token } = open()
    await token()
    commits.begun(id)
    const written: Array<unknown> = []
    const handover = new Handover(directory, commits, lending, () => [], async (windows) => { written.push(windows) })
    await handover.leave(() => false)
    let isOver = false
    const over = handover.leave(() => true).then(() => { isOver = true })
    await vi.advanceTimersByTimeAsync(limits.handoffMs - 1)
    expect([isOver, directory.residentCount]).toEqual([false, 0])
    await vi.advanceTimersByTimeAsync(1)
    await over
    expect(written).toEqual([])
  })
})
