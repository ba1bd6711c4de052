/** Receipts reach their readers' mail server, whatever goes away in between. */
import { Layer, ManagedRuntime } from "effect"
import { describe, expect, it } from "vitest"
import { Config, readSettings } from "../../src/config.ts"
import { Outbox } from "../../src/kernel/Outbox.ts"
import { Smtp } from "../../src/mail/Smtp.ts"
import { migrate } from "../../src/store/Migrations.ts"
import { type Connection, Postgres, type Sql } from "../../src/store/Postgres.ts"
import { log } from "../../src/telemetry/log.ts"
import { metrics, registry } from "../../src/telemetry/Metrics.ts"
import { ChatSocket } from "../support/ChatSocket.ts"
import { closedSession } from "../support/closedSession.ts"
import { startCutProxy } from "../support/CutProxy.ts"
import { type GatewayProcess, until } from "../support/GatewayProcess.ts"
import { MailServer, type MailServerOptions } from "../support/MailServer.ts"
import { pagesOf } from "../support/poppler.ts"
import { type StageDatabase, useStage } from "../support/Stage.ts"

log.level = "silent"
const stage = useStage()

const database = async (): Promise<StageDatabase> => {
  const made = await stage.database()
  await migrate(made.sql)
  return made
}

const mailServer = async (options?: MailServerOptions): Promise<MailServer> => {
  const server = await MailServer.start(options)
  stage.onEnd(() => server.close())
  return server
}

/** A node's outbox. It looks for letters at once, and then every 15 s or when it is woken. */
const startOutbox = async (connection: Connection, smtpPort: number) => {
  const settings = readSettings({ PUBLIC_URL: "https://gateway.test" })
  const runtime = ManagedRuntime.make(Outbox.layer.pipe(
    Layer.provide(Smtp.layer(`smtp://127.0.0.1:${smtpPort}`)), Layer.provide(Postgres.layer(connection)), Layer.provide(Layer.succeed(Config, settings))
  ))
  stage.onEnd(() => runtime.dispose())
  const { wake } = await runtime.runPromise(Outbox)
  return { wake, stop: () => runtime.dispose() }
}

interface Row { attempts: number; last_error: string | null; sent: boolean; failed: boolean; wait_s: number }
const row = async (sql: Sql, letterId: string): Promise<Row> => {
  const [found] = await sql<Array<Row>>`
    select attempts, last_error, sent_at is not null as sent, failed_at is not null as failed, extract(epoch from next_attempt_at - now())::float8 as wait_s from letters where id = ${letterId}`
  return found!
}
/** As after its wait, or its claim. */
const makeDue = (sql: Sql, letterId: string) => sql`update letters set next_attempt_at = now() where id = ${letterId}`

/** A server's answer that a test gives later. */
const holdData = () => {
  let release = (): void => {}
  let reached = (): void => {}
  const held = new Promise<undefined>((done) => { release = () => done(undefined) })
  const arrived = new Promise<void>((done) => { reached = done })
  const refuse: MailServerOptions["refuse"] = (at) => {
    if (at !== "data") return undefined
    reached()
    return held
  }
  return { refuse, arrived, release }
}

describe("a receipt's letter", () => {
  it("is sent once, with the receipt, says nothing that a stranger wrote, and comes at once when the outbox is woken", async () => {
    const { options, sql } = await database()
    const server = await mailServer()
    const { wake } = await startOutbox(options, server.port)
    const session = await closedSession(sql, { agentName: "Win at https://evil.example", email: "reader@example.com" })
    wake()
    const [letter] = await server.received(1)
    expect(letter).toMatchObject({ to: [session.email], from: "no-reply@gateway.test", pdf: { name: `receipt-${session.sessionId}.pdf` } })
    expect(letter!.headers.get("message-id")).toBe(`<${session.letterId}@gateway.test>`)
    expect(letter!.headers.get("subject")).toBe(`Receipt: $1.50 for your chat with ${session.ticker}`)
    expect(letter!.text).toContain(`Session: ${session.sessionId}\nTotal: $1.50, paid from your prepaid credits`)
    expect(letter!.text + letter!.html).not.toContain("evil")
    const [page = ""] = await pagesOf(letter!.pdf!.content)
    for (const text of [session.email, session.sessionId, `Win at https://evil.example (${session.ticker})`, ...session.orderIds, "https://gateway.test", "$1.50"]) expect(page).toContain(text)
    await until(async () => (await row(sql, session.letterId)).sent)
    expect(await row(sql, session.letterId)).toMatchObject({ attempts: 1, failed: false, last_error: null })
    await makeDue(sql, session.letterId)
    const next = await closedSession(sql)
    wake()
    expect((await server.received(2))[1]!.to).toEqual([next.email])
  })

  it("waits for a server that is away, longer each time, and arrives when it is back", async () => {
    const { options, sql } = await database()
    const gone = await MailServer.start()
    await gone.close()
    const { letterId } = await closedSession(sql)
    const { wake } = await startOutbox(options, gone.port)
    await until(async () => (await row(sql, letterId)).last_error !== null)
    const first = await row(sql, letterId)
    expect(first).toMatchObject({ attempts: 1, sent: false, failed: false, last_error: expect.stringMatching(/^ESOCKET CONN/) })
    expect(Math.abs(first.wait_s - 60)).toBeLessThan(20)
    await sql`update letters set next_attempt_at = now(), last_error = null where id = ${letterId}`
    wake()
    await until(async () => (await row(sql, letterId)).last_error !== null)
    expect(Math.abs((await row(sql, letterId)).wait_s - 120)).toBeLessThan(35)
    await until(async () => await registry.getSingleMetricAsString("tollgate_letters_waiting").then((text) => text.endsWith(" 1")))
    await mailServer({ port: gone.port })
    await makeDue(sql, letterId)
    wake()
    await until(async () => (await row(sql, letterId)).sent)
    expect(await row(sql, letterId)).toMatchObject({ attempts: 3, last_error: null })
    await until(async () => await registry.getSingleMetricAsString("tollgate_letters_waiting").then((text) => text.endsWith(" 0")))
  })

  it("is given up when its reader is refused for good, is nobody, or after three days, and keeps no other", async () => {
    const { options, sql } = await database()
    const failed = async (): Promise<number> => (await metrics.lettersFailed.get()).values[0]?.value ?? 0
    const before = await failed()
    const unknown = await closedSession(sql, { ageHours: 4 })
    const old = await closedSession(sql, { ageHours: 73 })
    const young = await closedSession(sql, { ageHours: 71 })
    const nobody = await closedSession(sql, { email: undefined })
    const reader = await closedSession(sql)
    const answers = new Map([[unknown.email, "550 5.1.1 unknown"], [old.email, "451 4.2.1 later"], [young.email, "451 4.2.1 later"]])
    const server = await mailServer({ refuse: (_, { recipient = "" }) => answers.get(recipient) })
    await startOutbox(options, server.port)
    await until(async () => (await Promise.all([unknown, old, young, nobody].map(({ letterId }) => row(sql, letterId)))).every(({ last_error }) => last_error !== null))
    expect(await row(sql, unknown.letterId)).toMatchObject({ failed: true, sent: false, last_error: "EENVELOPE RCPT TO 550 5.1.1" })
    expect(await row(sql, old.letterId)).toMatchObject({ failed: true, sent: false, last_error: "EENVELOPE RCPT TO 451 4.2.1" })
    expect(await row(sql, young.letterId)).toMatchObject({ failed: false, sent: false, last_error: "EENVELOPE RCPT TO 451 4.2.1" })
    expect(await row(sql, nobody.letterId)).toMatchObject({ failed: true, sent: false, last_error: "there is no address" })
    expect(await failed() - before).toBe(3)
    expect((await server.received(1)).map(({ to }) => to)).toEqual([[reader.email]])
  })

  it("goes out by one node only when several look for it at once", async () => {
    const { options, sql } = await database()
    const sessions = await Promise.all(Array.from({ length: 24 }, () => closedSession(sql)))
    const server = await mailServer()
    await Promise.all([startOutbox(options, server.port), startOutbox(options, server.port), startOutbox(options, server.port)])
    await until(async () => (await sql`select 1 from letters where sent_at is null`).length === 0)
    expect(server.letters.flatMap(({ to }) => to).sort()).toEqual(sessions.map(({ email }) => email).sort())
    expect((await sql`select 1 from letters where attempts <> 1`).length).toBe(0)
  })

  it("is marked when the database is back, and not sent again, when that went away while it was sent", async () => {
    const { options, sql } = await database()
    const proxy = await startCutProxy(options)
    stage.onEnd(() => proxy.close())
    const { refuse, arrived, release } = holdData()
    const server = await mailServer({ refuse: refuse! })
    const { letterId } = await closedSession(sql)
    await startOutbox(proxy.options, server.port)
    await arrived
    const cut = proxy.arm("beforeSend", "set sent_at")
    release()
    await cut
    expect(await row(sql, letterId)).toMatchObject({ sent: false })
    await until(async () => (await row(sql, letterId)).sent)
    expect(server.letters.length).toBe(1)
  })

  it("under way when a node stops has some time to arrive, and is marked", async () => {
    const { options, sql } = await database()
    const { refuse, arrived, release } = holdData()
    const server = await mailServer({ refuse: refuse! })
    const { letterId } = await closedSession(sql)
    const { stop } = await startOutbox(options, server.port)
    await arrived
    const stopped = stop()
    release()
    await stopped
    expect(await row(sql, letterId)).toMatchObject({ sent: true, attempts: 1 })
  })
})

describe("a gateway with SMTP_URL", () => {
  it("that is killed after the mail server took a letter, and before it knew, sends it again with the same Message-ID", async () => {
    const { env, sql } = await database()
    const { letterId, email } = await closedSession(sql)
    const ids: Array<string> = []
    let gateway: Promise<GatewayProcess> | undefined
    const server = await mailServer({ refuse: async (at, { letter }) => {
      if (at !== "data") return undefined
      ids.push(letter!.headers.get("message-id")!)
      if (ids.length === 1) await (await gateway!).kill9()
      return undefined
    } })
    gateway = stage.gateway({ ...env, SMTP_URL: `smtp://127.0.0.1:${server.port}` })
    await server.received(1)
    const killed = await gateway
    expect(await row(sql, letterId)).toMatchObject({ sent: false, attempts: 1 })
    // Still claimed by the dead one.
    expect((await row(sql, letterId)).wait_s).toBeGreaterThan(60)
    await makeDue(sql, letterId)
    const next = await stage.gateway({ ...env, SMTP_URL: `smtp://127.0.0.1:${server.port}` })
    await until(async () => (await row(sql, letterId)).sent)
    expect(server.letters.map(({ to }) => to)).toEqual([[email], [email]])
    expect(ids).toEqual([`<${letterId}@gateway.test>`, `<${letterId}@gateway.test>`])
    for (const { stderr } of [killed, next]) expect(stderr()).not.toContain("@example.com")
  })

  it("mails the receipt of a chat that cost a dollar when it is closed, the same that can be downloaded, and none of a cheaper one", async () => {
    const server = await mailServer()
    const gateway = await stage.gateway({ ...(await stage.database()).env, SMTP_URL: `smtp://127.0.0.1:${server.port}` })
    const [owner, buyer] = await Promise.all([gateway.person(), gateway.person("10")])
    const agent = await stage.agent()
    const { ticker } = await gateway.list(owner, agent.url, "0.50")
    const key = await gateway.key(buyer)
    const chat = async (turns: number): Promise<string> => {
      const socket = await ChatSocket.open(gateway, ticker, key)
      for (let turn = 0; turn < turns; turn++) {
        const before = socket.frames.length
        socket.message("hello")
        await socket.next("billing", before)
      }
      const id = socket.session["session_id"] as string
      await gateway.call("DELETE", `/v1/sessions/${id}`, { token: key })
      return id
    }
    const cheap = await chat(1)
    const dear = await chat(2)
    const [letter] = await server.received(1)
    expect(letter!.headers.get("subject")).toBe(`Receipt: $1.00 for your chat with ${ticker}`)
    const download = await fetch(`${gateway.url}/v1/sessions/${dear}/receipt`, { headers: { authorization: `Bearer ${key}` } })
    expect(download.headers.get("content-type")).toBe("application/pdf")
    expect(Buffer.from(await download.arrayBuffer()).equals(letter!.pdf!.content)).toBe(true)
    const [page = ""] = await pagesOf(letter!.pdf!.content)
    expect(page).toContain(dear)
    expect((await fetch(`${gateway.url}/v1/sessions/${cheap}/receipt`, { headers: { authorization: `Bearer ${key}` } })).status).toBe(200)
    expect(server.letters.length).toBe(1)
  })
})
