/**
 * The operator's mail server, spoken to by nodemailer, which lives in this file
 * alone: a few connections that are kept, one letter at a time on each.
 *
 * `deliver` returns when the server has taken the letter, which does not mean
 * that anybody reads it. When it fails the server may have taken it all the
 * same: whoever tries again sends the same id, which becomes the Message-ID, so
 * that receivers can drop the second one. What it says of a failure is codes;
 * addresses, texts and the server's own words stay out of logs and tables.
 *
 * Nobody's text becomes a header: a letter has one address, which is one, and
 * its subject is one line. The connection is encrypted from the start for
 * `smtps:`; for `smtp:` when the server offers it, and with a password always,
 * or nothing is sent. Certificates are verified, except on loopback, where mail
 * servers often have one that nobody signed.
 */
import { Context, Effect, Layer, Schema, Semaphore } from "effect"
import { Config, limits } from "../config.ts"
import { parseEmail } from "../domain/email.ts"
import { metrics } from "../telemetry/Metrics.ts"
import type { Letter } from "./Mail.ts"

/** A letter under a name of its own, which it keeps when it is sent again. */
export interface Delivery extends Letter {
  readonly id: string
  readonly pdf?: { readonly name: string; readonly content: Uint8Array }
}

/** It may have arrived all the same, unless the server refuses this recipient for good (`permanent`). */
export class NotDelivered extends Schema.TaggedError<NotDelivered>()("NotDelivered", { permanent: Schema.Boolean, why: Schema.String }) {}

const connectMs = 10_000
/** Silence while a letter is handed over. */
const silenceMs = 30_000
/** A server may close after 5 minutes (RFC 5321 §4.5.3.2.7), and many do so sooner. */
const idleMs = 30_000
const answerBytesMax = 64 * 1024

const loopback = new Set(["127.0.0.1", "::1", "localhost"])

/** How to connect, from `SMTP_URL`. */
export const connectionOf = (url: string) => {
  const { protocol, hostname, port, username, password } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, "")
  const isLocal = loopback.has(host)
  const secure = protocol === "smtps:"
  const login = username === "" ? {} : { auth: { user: decodeURIComponent(username), pass: decodeURIComponent(password) } }
  return {
    host, secure, ...login,
    port: port === "" ? secure ? 465 : 587 : Number(port),
    requireTLS: !secure && username !== "" && !isLocal,
    tls: { rejectUnauthorized: !isLocal }
  }
}

export class Smtp extends Context.Service<Smtp, {
  /** Takes at most `letterDeliveryMs`, once a connection is free. */
  readonly deliver: (letter: Delivery) => Effect.Effect<void, NotDelivered>
}>()("tollgate/mail/Smtp") {
  static readonly layer = (url: string) => Layer.effect(Smtp, Effect.gen(function*() {
    const { mailFrom } = yield* Config
    const domain = mailFrom.address.slice(mailFrom.address.lastIndexOf("@") + 1)
    const { createTransport } = yield* Effect.promise(() => import("nodemailer"))
    const transport = yield* Effect.acquireRelease(
      Effect.sync(() => createTransport({
        ...connectionOf(url),
        pool: true, maxConnections: limits.lettersUnderWayMax, maxRequeues: 1, idleTimeout: idleMs, name: domain,
        connectionTimeout: connectMs, greetingTimeout: connectMs, dnsTimeout: connectMs, socketTimeout: silenceMs, maxResponseSize: answerBytesMax,
        disableFileAccess: true, disableUrlAccess: true
      })),
      (opened) => Effect.sync(() => opened.close({ force: true }))
    )
    const connections = yield* Semaphore.make(limits.lettersUnderWayMax)
    const hand = (letter: Delivery) => Effect.tryPromise({
      try: (signal) => transport.sendMail({ ...messageOf(letter, domain), from: mailFrom, signal }),
      catch: failureOf
    }).pipe(
      Effect.timeoutOrElse({ duration: limits.letterDeliveryMs, orElse: () => Effect.fail(new NotDelivered({ permanent: false, why: "the server took too long" })) }),
      connections.withPermits(1),
      Effect.tap(() => Effect.sync(() => metrics.lettersSent.inc())),
      Effect.asVoid
    )
    return Smtp.of({
      deliver: (letter) => parseEmail(letter.to) === letter.to ? hand(letter) : Effect.fail(new NotDelivered({ permanent: true, why: "there is no address" }))
    })
  }))
}

const messageOf = ({ id, to, subject, text, pdf }: Delivery, domain: string) => ({
  to: { name: "", address: to },
  subject: subject.replace(/\p{Cc}+/gu, " "),
  messageId: `<${id}@${domain}>`,
  // So that nobody's holiday note answers (RFC 3834).
  headers: { "Auto-Submitted": "auto-generated" },
  text,
  html: htmlOf(text),
  attachments: pdf === undefined ? [] : [{ filename: pdf.name, content: Buffer.from(pdf.content), contentType: "application/pdf" }]
})

const escaped = (text: string): string => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

/** Paragraphs; one that is a URL becomes a link. */
const htmlOf = (text: string): string => text.trim().split(/\n{2,}/).map((paragraph) => {
  const content = escaped(paragraph).replaceAll("\n", "<br>")
  return /^https?:\/\/\S+$/.test(paragraph) ? `<p><a href="${content}">${content}</a></p>` : `<p>${content}</p>`
}).join("\n")

interface Failure {
  readonly code?: string
  readonly command?: string
  readonly responseCode?: number
  readonly response?: string
}

/**
 * Only what is said of the recipient is for good. A sender, a login or a content that is refused is the operator's to
 * mend, and the letter goes out then.
 */
const failureOf = (cause: unknown): NotDelivered => {
  const { code, command, responseCode, response } = cause as Failure
  const [status] = /\b[45]\.\d{1,3}\.\d{1,3}\b/.exec(response ?? "") ?? []
  const permanent = command === "RCPT TO" && responseCode !== undefined && responseCode >= 500 && responseCode !== 503
  return new NotDelivered({ permanent, why: [code, command, responseCode, status].filter((part) => part !== undefined).join(" ") || "the connection failed" })
}
