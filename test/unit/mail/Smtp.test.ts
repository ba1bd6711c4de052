import { describe, expect, it } from "vitest"
import { BadSetting, readSettings } from "../../../src/config.ts"
import { connectionOf } from "../../../src/mail/Smtp.ts"

describe("SMTP_URL", () => {
  it("says where, and smtps: that the connection is encrypted from its start", () => {
    expect(connectionOf("smtp://mail.example.com")).toEqual({ host: "mail.example.com", port: 587, secure: false, requireTLS: false, tls: { rejectUnauthorized: true } })
    expect(connectionOf("smtps://[2001:db8::1]")).toEqual({ host: "2001:db8::1", port: 465, secure: true, requireTLS: false, tls: { rejectUnauthorized: true } })
    expect(connectionOf("smtps://mail.example.com:2465")).toMatchObject({ port: 2465 })
  })

  it("with a login makes encryption a must, and says it percent-encoded", () => {
    expect(connectionOf("smtp://me%40example.com:p%2Fa%3As%40s@mail.example.com")).toMatchObject({ auth: { user: "me@example.com", pass: "p/a:s@s" }, requireTLS: true, tls: { rejectUnauthorized: true } })
  })

  it("on loopback trusts the server", () => {
    for (const host of ["127.0.0.1", "[::1]", "localhost"]) expect(connectionOf(`smtp://me:secret@${host}:2525`)).toMatchObject({ port: 2525, requireTLS: false, tls: { rejectUnauthorized: false } })
  })

  it.each([
    "http://me:secret@mail.example.com", "smtp:me:secret@mail.example.com", "smtp:///", "smtp://me:se/secret@mail.example.com", "smtp://me:secr%et@mail.example.com", "me:secret@mail.example.com"
  ])("%s stops the start, in a line without the password", (url) => {
    expect(() => readSettings({ SMTP_URL: url })).toThrow(BadSetting)
    expect(() => readSettings({ SMTP_URL: url })).toThrow(/^SMTP_URL=(?!.*secr)/)
  })
})

describe("MAIL_FROM", () => {
  it.each([
    ["Tollgate <no-reply@example.com>", "Tollgate", "no-reply@example.com"],
    ["\"Tollgate, Inc.\" <no-reply@example.com>", "Tollgate, Inc.", "no-reply@example.com"],
    ["Größe 门 <no-reply@localhost>", "Größe 门", "no-reply@localhost"],
    ["no-reply@example.com", "", "no-reply@example.com"],
    ["<no-reply@example.com>", "", "no-reply@example.com"]
  ])("may be %s", (text, name, address) => expect(readSettings({ MAIL_FROM: text }).mailFrom).toEqual({ name, address }))

  it.each([
    "Tollgate", "a@b@c", "a@example.com, b@example.com", "Tollgate <a@example.com> <b@example.com>", "Toll\r\nBcc: x <a@example.com>", "a@exam ple.com", "<>", "@example.com"
  ])("may not be %j", (text) => expect(() => readSettings({ MAIL_FROM: text })).toThrow("MAIL_FROM"))

  it("is by default of the host of PUBLIC_URL", () => {
    expect(readSettings({}).mailFrom).toEqual({ name: "Tollgate", address: "no-reply@localhost" })
    expect(readSettings({ PUBLIC_URL: "https://gateway.example.com:8443/x" }).mailFrom.address).toBe("no-reply@gateway.example.com")
    expect(readSettings({ PUBLIC_URL: "http://[::1]:8080" }).mailFrom.address).toBe("no-reply@[::1]")
  })
})
