/**
 * Whatever comes over chat sockets: it is answered, refused with a word and a
 * code, or cut; never a defect, and afterwards nothing is left of it.
 */
import { expect, it } from "vitest"
import { echoes } from "../support/ChatAgent.ts"
import { ChatScene, expectNoHolds } from "../support/ChatScene.ts"
import { brokenFrame, nonsense } from "../support/ChatGarbage.ts"
import { LightChat } from "../support/LightChat.ts"
import { type GatewayProcess, until } from "../support/GatewayProcess.ts"
import { Random } from "../support/Random.ts"
import { restingBytes, restingEnv } from "../support/restingMemory.ts"
import { useStage } from "../support/Stage.ts"

const stage = useStage()

const frames = process.env["TOLLGATE_FULL"] === "1" ? 100_000 : 10_000
const clients = 24

/** What a client says that is in order, or nearly. */
const sense = (random: Random): object => random.of([
  { type: "ping" }, { type: "ping", extra: [1] }, { type: "cancel" },
  { type: "message", prompt: `a word and ${"another ".repeat(random.below(40))}` },
  { type: "message", prompt: "once", id: `m-${random.below(10)}` }
])

class FuzzClient {
  /** How every socket of it ended. */
  readonly endings = new Set<string>()
  readonly refusals = new Set<string>()
  chat: LightChat | undefined
  readonly #gateway: GatewayProcess
  readonly #ticker: string
  readonly #token: string
  readonly #random: Random
  #sessionId: string | undefined

  constructor(gateway: GatewayProcess, ticker: string, token: string, random: Random) {
    this.#gateway = gateway
    this.#ticker = ticker
    this.#token = token
    this.#random = random
  }

  /** Answers how many frames it sent. */
  async some(): Promise<number> {
    const random = this.#random
    if (random.chance(0.1)) return this.#stranger()
    const chat = await this.back()
    const count = 1 + random.below(20)
    for (let n = 0; n < count; n++) {
      if (random.chance(0.04)) {
        chat.sendRaw(brokenFrame(random))
        await this.#gone(chat)
        return n + 1
      }
      if (random.chance(0.6)) chat.send(sense(random))
      else chat.sendRaw(nonsense(random))
      if (random.chance(0.7)) continue
      const from = chat.frames.length
      chat.send({ type: "ping" })
      if (await chat.until(({ type }) => type === "pong", from).then(() => false, () => true)) {
        await this.#gone(chat)
        return n + 1
      }
    }
    if (random.chance(0.3)) await this.#gone(chat)
    return count
  }

  /** On its own session again, or on a new one. */
  async back(): Promise<LightChat> {
    if (this.chat?.ending === undefined && this.chat !== undefined) return this.chat
    if (this.chat !== undefined) await this.#gone(this.chat)
    for (;;) {
      const chat = await LightChat.connect(this.#gateway.port, this.#ticker)
      chat.send({ type: "auth", token: this.#token, session_id: this.#sessionId })
      const first = await chat.until(() => true)
      if (first.type === "session") {
        this.#sessionId = chat.sessionId
        return this.chat = chat
      }
      // It was away for too long.
      expect(first).toMatchObject({ code: "session_closed" })
      this.#sessionId = undefined
      await chat.closed()
    }
  }

  /** Speaks before it has said who it is, or while that is looked at. */
  async #stranger(): Promise<number> {
    const random = this.#random
    const chat = await LightChat.connect(this.#gateway.port, this.#ticker)
    if (random.chance(0.1)) {
      chat.send({ type: "auth", token: `${this.#token}x` })
      expect(await chat.closed()).toBe("4401")
      return 1
    }
    if (random.chance(0.3)) chat.send({ type: "auth", token: this.#token })
    const count = 1 + random.below(3)
    for (let n = 0; n < count; n++) chat.sendRaw(random.chance(0.3) ? brokenFrame(random) : nonsense(random))
    await this.#gone(chat)
    return count
  }

  async #gone(chat: LightChat): Promise<void> {
    if (this.#random.chance(0.5)) chat.halfClose()
    else chat.reset()
    this.endings.add(await chat.closed())
    for (const { type, code } of chat.frames.splice(0)) if (type === "error") this.refusals.add(code as string)
    if (this.chat === chat) this.chat = undefined
  }
}

it("10,000 random and mutated frames, among good ones, meet no defect, and leave no session stuck and no memory, socket or hold behind", { timeout: 900_000 }, async () => {
  const random = new Random()
  console.info(`SEED=${random.seed}`)
  const scene = await ChatScene.set(stage, { CHAT_LATE_CANCELS_PER_DAY: "1000000", CHAT_RESUME_SECONDS: "5", ...restingEnv })
  const { gateway } = scene
  const whole = (turn: Parameters<typeof echoes>[0]): void => turn.answer("application/json", JSON.stringify({ response: turn.body.prompt }))
  const [paid, free, json] = await Promise.all([scene.list("0.000001", echoes), scene.list("0", echoes), scene.list("0.000002", whole)])
  const buyers = await Promise.all(Array.from({ length: 3 }, () => scene.buyer("1000.00")))
  const all = Array.from({ length: clients }, (_, n) => {
    const buyer = buyers[n % buyers.length]!
    return new FuzzClient(gateway, [paid, free, json][Math.floor(n / 3) % 3]!.ticker, n % 2 === 0 ? buyer.key : buyer.token, random.fork())
  })
  const gauges = (): Promise<ReadonlyArray<number>> => Promise.all(
    ["tollgate_chat_sessions_live", "tollgate_chat_newcomers", "tollgate_sockets_open", "tollgate_chat_turns_running"].map((name) => gateway.metric(name)))
  const settled = async (): Promise<void> => {
    for (const client of all) await client.back()
    await until(async () => JSON.stringify(await gauges()) === JSON.stringify([clients, 0, clients, 0]))
  }
  let sent = 0
  const send = async (upTo: number): Promise<void> => {
    await Promise.all(all.map(async (client) => {
      while (sent < upTo) {
        const count = await client.some()
        sent += count
      }
    }))
    await settled()
  }

  await send(frames / 4)
  const before = await restingBytes(gateway)
  await send(frames)
  let after = await restingBytes(gateway)
  console.info(`${Math.round(before / 2 ** 20)} MiB before, ${Math.round(after / 2 ** 20)} MiB after`)
  while (after > 1.1 * before) after = await restingBytes(gateway)

  for (const client of all) {
    const chat = await client.back()
    const from = chat.frames.length
    chat.send({ type: "message", prompt: "still there" })
    await chat.next("billing", from)
    expect(chat.text(from)).toBe("still there")
    chat.send({ type: "close" })
    expect(await chat.closed()).toBe("1000")
  }
  await until(async () => (await gauges()).every((value) => value === 0))
  await expectNoHolds(gateway)
  const endings = new Set(all.flatMap((client) => [...client.endings]))
  const refusals = new Set(all.flatMap((client) => [...client.refusals]))
  expect([...endings].filter((ending) => ending === "1011")).toEqual([])
  expect([...refusals].filter((code) => code === "internal_error")).toEqual([])
  // It was nonsense, and was told so.
  expect([...endings]).toEqual(expect.arrayContaining(["1003", "1009", "4400", "cut"]))
  expect([...refusals]).toEqual(expect.arrayContaining(["invalid_json", "invalid_frame", "prompt_too_large", "turn_in_progress"]))
  expect(gateway.stderr()).not.toMatch(/defect|unhandled|"level":50/i)
  for (const buyer of buyers) {
    await until(async () => (await gateway.balance(buyer)).reserved_usd === "0.00")
  }
  await gateway.stop()
})
