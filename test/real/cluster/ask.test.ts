/** Asking the owner of an account, over real sockets. */
import { Effect, Result } from "effect"
import { once } from "node:events"
import { connect } from "node:net"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { AccountSuspended, Overloaded } from "../../../src/domain/errors.ts"
import { type RingNode, accounts, areSettled, granted, leaseAsk, startNode, until } from "../../support/RingNode.ts"
import { type TestRedis, startTestRedis } from "../../support/redis.ts"

let redis: TestRedis
let a: RingNode
let b: RingNode
let ofB: string
const borrows: Array<readonly [string, string]> = []
const ask = (node: RingNode, account: string) => Effect.runPromise(Effect.result(node.cluster.ask.lease(account, leaseAsk)))

beforeAll(async () => {
  redis = await startTestRedis()
  a = await startNode(redis, "a")
  b = await startNode(redis, "b", { handlers: {
    lease: (account, { subjectId }) => subjectId === "suspended" ? Effect.fail(new AccountSuspended({})) : subjectId === "late" ? Effect.fail(new Overloaded({ what: "placement", retryAfterMs: 7 })) : subjectId === "slow" ? Effect.never : subjectId === "bug" ? Effect.die("a bug") : Effect.succeed({ ...granted("b"), elsewhere: BigInt(account.length) }),
    borrow: (account, by) => Effect.sync(() => {
      borrows.push([account, by])
      return 7n
    }),
    giveBack: (account, by) => Effect.sync(() => void borrows.push([account, `back ${by}`]))
  } })
  await a.join()
  await b.join()
  await until(() => areSettled([a, b]))
  ofB = accounts.find((account) => b.cluster.ownerOf(account) === "here")!
})
afterAll(async () => {
  await Promise.all([a.end(), b.end()])
  await redis.stop()
})

describe("asking an account's owner", () => {
  it("is answered by the owner, from wherever, with exact amounts", async () => {
    const grant = { ...granted("b"), elsewhere: BigInt(ofB.length) }
    expect(await Promise.all([ask(a, ofB), ask(b, ofB)])).toEqual([Result.succeed(grant), Result.succeed(grant)])
    expect(await Effect.runPromise(a.cluster.ask.borrow(ofB, "a"))).toBe(7n)
    await Effect.runPromise(a.cluster.ask.giveBack(ofB, "a"))
    expect(borrows).toEqual([[ofB, "a"], [ofB, "back a"]])
  })

  it("answers the owner's refusal as it is", async () => {
    const refusal = await Effect.runPromise(Effect.result(a.cluster.ask.lease(ofB, { ...leaseAsk, subjectId: "suspended" })))
    expect(refusal).toEqual(Result.fail(new AccountSuspended({})))
    const late = await Effect.runPromise(Effect.result(a.cluster.ask.lease(ofB, { ...leaseAsk, subjectId: "late" })))
    expect(late).toEqual(Result.fail(new Overloaded({ what: "placement", retryAfterMs: 7 })))
  })

  it("gets many answers at once, each its own: neither a silent one nor a bug keeps the others", async () => {
    const asks = ["subject", "slow", "suspended", "late", "bug", "subject"].map((subjectId) => ({ accountId: ofB, ask: { ...leaseAsk, subjectId } }))
    const ofA = accounts.find((account) => a.cluster.ownerOf(account) === "here")!
    const [good, slow, suspended, late, bug, again, elsewhere] = await Effect.runPromise(a.cluster.ask.leases([...asks, { accountId: ofA, ask: leaseAsk }]))
    const grant = Result.succeed({ ...granted("b"), elsewhere: BigInt(ofB.length) })
    expect([good, again]).toEqual([grant, grant])
    expect(suspended).toEqual(Result.fail(new AccountSuspended({})))
    expect(late).toEqual(Result.fail(new Overloaded({ what: "placement", retryAfterMs: 7 })))
    for (const failed of [slow, bug, elsewhere]) expect(failed).toMatchObject({ _tag: "Failure", failure: { _tag: "Overloaded" } })
    expect(await Effect.runPromise(a.cluster.ask.leases([]))).toEqual([])
  })

  it("ends in time when the owner says nothing, is cut off by a bug, or is nobody", async () => {
    const lonely = await startTestRedis()
    const guest = await startNode(lonely, "guest")
    const replies = await Promise.all([
      Effect.runPromise(Effect.result(a.cluster.ask.lease(ofB, { ...leaseAsk, subjectId: "slow" }))),
      Effect.runPromise(Effect.result(a.cluster.ask.lease(ofB, { ...leaseAsk, subjectId: "bug" }))),
      ask(guest, ofB)
    ])
    for (const reply of replies) expect(reply).toEqual(Result.fail(new Overloaded({ what: "placement", retryAfterMs: 1_000 })))
    await guest.end()
    await lonely.stop()
  })

  it("a stranger at the port gets nothing but its end, and others are served on", async () => {
    const peer = a.cluster.ownerOf(ofB)
    if (typeof peer === "string") throw new Error(`${ofB} should be another's`)
    for (const words of [Buffer.from("GET / HTTP/1.1\r\nhost: x\r\n\r\n"), Buffer.concat([Buffer.from([0, 0, 0, 2]), Buffer.alloc(16), Buffer.from([0x93, 1])])]) {
      const stranger = connect(peer.port, peer.host)
      let heard = 0
      stranger.on("data", (bytes) => { heard += bytes.length }).on("error", () => {})
      stranger.write(words)
      await once(stranger, "close")
      expect(heard).toBe(0)
    }
    expect(Result.isSuccess(await ask(a, ofB))).toBe(true)
  })

  it("goes on while the account moves, and after the asker has left", async () => {
    const replies: Array<Promise<Awaited<ReturnType<typeof ask>>>> = []
    const asking = setInterval(() => replies.push(ask(a, ofB)), 25)
    await b.leave()
    await until(() => a.cluster.ownerOf(ofB) === "here")
    clearInterval(asking)
    expect((await Promise.all(replies)).filter(Result.isFailure)).toEqual([])
    expect(await Promise.all([ask(a, ofB), ask(b, ofB)])).toEqual([Result.succeed(granted("a")), Result.succeed(granted("a"))])
  })
})
