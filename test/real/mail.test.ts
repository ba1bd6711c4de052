/** Letters with links, through a real mail server. */
import { Effect, Exit, Fiber, Layer, ManagedRuntime } from "effect"
import { once } from "node:events"
import { writeFileSync } from "node:fs"
import { type AddressInfo, type Socket, createServer } from "node:net"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { Config, limits, readSettings } from "../../src/config.ts"
import { type Letter, Mail } from "../../src/mail/Mail.ts"
import { NotDelivered, Smtp } from "../../src/mail/Smtp.ts"
import { log } from "../../src/telemetry/log.ts"
import { metrics } from "../../src/telemetry/Metrics.ts"
import { password } from "../support/GatewayProcess.ts"
import { MailServer, type MailServerOptions } from "../support/MailServer.ts"
import { Stage } from "../support/Stage.ts"

log.level = "silent"
const link = "https://gateway.test/v1/auth/verify?token=a=b&c=é"
const letter = (more: Partial<Letter> = {}): Letter => ({ to: "somebody@example.com", subject: "Verify your email", text: `Open this link:\n\n${link}\n\nOr <b>ignore</b>\nthis letter.\n`, ...more })

interface Post {
  readonly send: (letter: Letter) => Promise<void>
  readonly deliver: (letter: Letter) => Promise<NotDelivered | undefined>
  readonly smtp: Smtp["Service"]
  readonly stop: () => Promise<void>
}

/** A node's way to the mail server at `url`. */
const withPost = async (url: string, act: (post: Post) => Promise<void>): Promise<void> => {
  const settings = Layer.succeed(Config, readSettings({ MAIL_FROM: "Größe Ltd <no-reply@gateway.test>" }))
  const runtime = ManagedRuntime.make(Mail.layerSmtp.pipe(Layer.provideMerge(Smtp.layer(url)), Layer.provide(settings)))
  const smtp = await runtime.runPromise(Smtp)
  const mail = await runtime.runPromise(Mail)
  try {
    await act({
      smtp,
      send: (letter) => Effect.runPromise(mail.send(letter)),
      deliver: async (letter) => {
        const exit = await Effect.runPromiseExit(Effect.flip(smtp.deliver({ ...letter, id: "a-letter" })))
        return Exit.isSuccess(exit) ? exit.value : undefined
      },
      stop: () => runtime.dispose()
    })
  } finally {
    await runtime.dispose()
  }
}

const withServer = async (options: MailServerOptions, act: (server: MailServer, post: Post) => Promise<void>, login = ""): Promise<void> => {
  const server = await MailServer.start(options)
  try {
    await withPost(`${options.tls === "implicit" ? "smtps" : "smtp"}://${login}127.0.0.1:${server.port}`, (post) => act(server, post))
  } finally {
    await server.close()
  }
}

describe.concurrent("a letter", () => {
  it("arrives as text and as HTML, with its link whole, from whom the operator says, at one address", () => withServer({}, async (server, { send }) => {
    await send(letter())
    const [arrived] = await server.received(1)
    expect(arrived).toMatchObject({ from: "no-reply@gateway.test", to: ["somebody@example.com"], text: letter().text, pdf: undefined })
    expect(arrived!.html).toContain(`<a href="https://gateway.test/v1/auth/verify?token=a=b&#38;c=é">`)
    expect(arrived!.html).toContain("<p>Or &#60;b&#62;ignore&#60;/b&#62;<br>this letter.</p>")
    const headers = Object.fromEntries(arrived!.headers)
    expect(headers).toMatchObject({ from: "Größe Ltd <no-reply@gateway.test>", to: "somebody@example.com", subject: "Verify your email", "auto-submitted": "auto-generated" })
    expect(headers["message-id"]).toMatch(/^<[\da-f-]{36}@gateway\.test>$/)
    expect(headers["date"]).toMatch(/^\w{3}, \d/)
    expect(Object.keys(headers).sort()).toEqual(["auto-submitted", "content-type", "date", "from", "message-id", "mime-version", "subject", "to"])
  }))

  it("gets no other header or address by what is in it", () => withServer({}, async (server, { send, deliver }) => {
    await send(letter({ subject: "Hello\r\nBcc: other@example.com\r\n\r\nanother body", text: "Bcc: other@example.com\r\n.\r\nMAIL FROM:<other@example.com>\r\n" }))
    const [arrived] = await server.received(1)
    expect(arrived!.to).toEqual(["somebody@example.com"])
    expect([...arrived!.headers.keys()]).not.toContain("bcc")
    expect(arrived!.headers.get("subject")).toBe("Hello Bcc: other@example.com another body")
    expect(arrived!.text).toContain("MAIL FROM:<other@example.com>")
    for (const to of ["a@example.com, b@example.com", "a@example.com\r\nBcc: b@example.com", "A <a@example.com>", "a@example.com>\r\nRCPT TO:<b@example.com", "a@EXAMPLE.com", "group:a@example.com;", ""]) {
      expect(await deliver(letter({ to })), to).toEqual(new NotDelivered({ permanent: true, why: "there is no address" }))
    }
    expect(server.letters.length).toBe(1)
  }))

  it("is tried again when the server refuses it for now", () => {
    let refusals = 0
    return withServer({ refuse: (stage) => stage === "recipient" && refusals++ === 0 ? "451 4.7.1 greylisted" : undefined }, async (server, { send }) => {
      await send(letter())
      await server.received(1)
      expect(refusals).toBe(2)
    })
  })

  it("is tried again when the server goes away in the middle of it, under the same id", () => {
    const ids: Array<string> = []
    return withServer({ refuse: (stage, { letter }) => {
      if (stage !== "data") return undefined
      ids.push(letter!.headers.get("message-id")!)
      return ids.length === 1 ? "421 4.3.2 closing" : undefined
    } }, async (server, { send }) => {
      await send(letter())
      await server.received(1)
      expect(ids[1]).toBe(ids[0])
    })
  })

  it("goes out encrypted, with the login, where the server offers it", () => withServer(
    { tls: "starttls", login: { user: "me@example.com", password: "p/a:s@s" } },
    async (server, { send }) => {
      await send(letter())
      expect((await server.received(1))[0]).toMatchObject({ encrypted: true, user: "me@example.com" })
    }, "me%40example.com:p%2Fa%3As%40s@"))

  it("goes out encrypted from the start for smtps", () => withServer({ tls: "implicit" }, async (server, { send }) => {
    await send(letter())
    expect((await server.received(1))[0]).toMatchObject({ encrypted: true, user: undefined })
  }))

  it("that can't be sent is explained by codes, without the password, an address or the server's words", async () => {
    await withServer({ login: { user: "me", password: "right" } }, async (_, { deliver }) => {
      expect(await deliver(letter())).toEqual(new NotDelivered({ permanent: false, why: "EAUTH AUTH PLAIN 535 5.7.8" }))
    }, "me:wrong@")
    for (const [stage, answer, failure] of [
      ["recipient", "550 5.1.1 <somebody@example.com> is unknown", { permanent: true, why: "EENVELOPE RCPT TO 550 5.1.1" }],
      ["recipient", "450 4.2.1 somebody@example.com is busy", { permanent: false, why: "EENVELOPE RCPT TO 450 4.2.1" }],
      ["sender", "553 5.7.1 not you", { permanent: false, why: "EENVELOPE MAIL FROM 553 5.7.1" }],
      ["data", "554 5.6.0 I don't like it", { permanent: false, why: "EMESSAGE DATA 554 5.6.0" }]
    ] as const) {
      await withServer({ refuse: (at) => at === stage ? answer : undefined }, async (_, { deliver }) => expect(await deliver(letter()), answer).toEqual(new NotDelivered(failure)))
    }
    await withPost("smtp://127.0.0.1:1", async ({ deliver }) => expect(await deliver(letter())).toMatchObject({ permanent: false, why: expect.stringMatching(/^ESOCKET CONN/) }))
  })

  it("is hung up on when a server says nothing, and when it is no longer wanted", async () => {
    const sockets: Array<Socket> = []
    const mute = createServer((socket) => void sockets.push(socket.on("error", () => {})))
    mute.listen(0, "127.0.0.1")
    await once(mute, "listening")
    try {
      await withPost(`smtp://127.0.0.1:${(mute.address() as AddressInfo).port}`, async ({ smtp, deliver }) => {
        const fiber = Effect.runFork(smtp.deliver({ ...letter(), id: "a-letter" }))
        const [socket] = await once(mute, "connection") as [Socket]
        const ended = once(socket.resume(), "close")
        await Effect.runPromise(Fiber.interrupt(fiber))
        await ended
        expect(await deliver(letter())).toMatchObject({ permanent: false, why: expect.stringMatching(/^ETIMEDOUT/) })
      })
    } finally {
      for (const socket of sockets) socket.destroy()
      mute.close()
    }
  })
})

const lettersLost = async (): Promise<number> => (await metrics.lettersFailed.get()).values[0]?.value ?? 0

describe("letters", () => {
  it("beyond those that may wait are dropped and counted, the others arrive over a few connections, and nobody who sends one waits", async () => {
    let release = (): void => {}
    const held = new Promise<undefined>((done) => { release = () => done(undefined) })
    let connections = (): number => 0
    let most = 0
    const lost = await lettersLost()
    await withServer({ refuse: (stage) => {
      most = Math.max(most, connections())
      return stage === "data" ? held : undefined
    } }, async (server, { send }) => {
      connections = () => server.connections()
      for (let n = 0; n < limits.lettersWaitingMax + 20; n++) await send(letter({ to: `n${n}@example.com` }))
      expect(await lettersLost() - lost).toBe(20)
      release()
      const arrived = await server.received(limits.lettersWaitingMax)
      expect(new Set(arrived.flatMap(({ to }) => to)).size).toBe(limits.lettersWaitingMax)
      expect(most).toBe(limits.lettersUnderWayMax)
    })
  })

  it("one of which is refused for good don't keep the others, and it is not tried again", async () => {
    let tries = 0
    const lost = await lettersLost()
    await withServer({ refuse: (stage) => stage === "recipient" && tries++ === 0 ? "550 5.1.1 unknown" : undefined }, async (server, { send, stop }) => {
      await send(letter({ to: "nobody@example.com" }))
      await send(letter())
      await server.received(1)
      await stop() // Waits for all letters.
      expect(tries).toBe(2)
      expect(await lettersLost() - lost).toBe(1)
    })
  })

  it("under way when a gateway stops have some time to arrive", async () => {
    let release = (): void => {}
    let arrived = (): void => {}
    const held = new Promise<undefined>((done) => { release = () => done(undefined) })
    const reached = new Promise<void>((done) => { arrived = done })
    await withServer({ refuse: (stage) => {
      if (stage !== "data") return undefined
      arrived()
      return held
    } }, async (server, { send, stop }) => {
      await send(letter())
      await reached
      const stopped = stop()
      release()
      await stopped
      expect(server.letters.length).toBe(1)
    })
  })
})

describe("a gateway with SMTP_URL", () => {
  it("mails the links to verify an email and to reset a password, and its log knows neither", async () => {
    const stage = new Stage()
    const server = await MailServer.start({ login: { user: "me", password: "secret-of-smtp" } })
    stage.onEnd(() => server.close())
    try {
      const file = join(stage.directory(), "smtp")
      writeFileSync(file, `smtp://me:secret-of-smtp@127.0.0.1:${server.port}\n`)
      const gateway = await stage.gateway({ ...(await stage.database()).env, SMTP_URL_FILE: file, AUTO_VERIFY_EMAIL: "false", MAIL_FROM: "Gateway <gateway@example.com>", SECRETS_KEY: "k".repeat(32) })
      const { access_token: token } = await gateway.ask(201, "POST", "/v1/auth/register", { body: { email: "new@example.com", password } })
      const [verify] = await server.received(1)
      expect(verify).toMatchObject({ to: ["new@example.com"], from: "gateway@example.com", user: "me" })
      const [path = ""] = /(?<=http:\/\/gateway\.test)\/v1\/auth\/verify\?token=\S+/.exec(verify!.text) ?? []
      expect((await gateway.call("GET", path)).status).toBeLessThan(400)
      expect(await gateway.ask(200, "GET", "/v1/auth/me", { token })).toMatchObject({ email_verified: true })
      await gateway.call("POST", "/v1/auth/password/forgot", { body: { email: "new@example.com" } })
      const [, reset] = await server.received(2)
      const [, resetToken = ""] = /password-reset\?token=(\S+)/.exec(reset!.text) ?? []
      expect((await gateway.call("POST", "/v1/auth/password/reset", { body: { token: resetToken, new_password: "another password" } })).status).toBeLessThan(300)
      expect(await gateway.metric("tollgate_letters_sent_total")).toBe(2)
      for (const secret of [path.split("=")[1]!, resetToken, "new@example.com", "secret-of-smtp"]) expect(gateway.stderr()).not.toContain(secret)
    } finally {
      await stage.end()
    }
  })
})
