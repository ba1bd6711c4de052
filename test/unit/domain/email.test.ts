import { describe, expect, it } from "vitest"
import { parseEmail } from "../../../src/domain/email.ts"

describe("an email address", () => {
  it("has one spelling", () => {
    expect(parseEmail(" Ada.Lovelace+bills@Example.COM\n")).toBe("ada.lovelace+bills@example.com")
    expect(parseEmail("o'brien_1@mail.example-one.co.uk")).toBe("o'brien_1@mail.example-one.co.uk")
    expect(parseEmail("a@xn--bcher-kva.example")).toBe("a@xn--bcher-kva.example")
  })

  it.each([
    "", "ada", "@example.com", "ada@", "ada@localhost", "ada@@example.com", "ada@example..com", "ada@-example.com", "ada@example-.com",
    ".ada@example.com", "ada.@example.com", "a..b@example.com", "ada @example.com", "ada@exam ple.com", "ada@[127.0.0.1]",
    "ada@example.com\r\nBcc: bob@example.com", "ada@example.com,bob@example.com", "<ada@example.com>", "\"ada\"@example.com",
    "ada\u0000@example.com", "\u0430da@example.com", "ada@b\u00fccher.example",
    `${"a".repeat(65)}@example.com`, `ada@${"a".repeat(64)}.com`, `a@${"a.".repeat(126)}com`
  ])("is not %j", (text) => {
    expect(parseEmail(text)).toBeUndefined()
  })

  it("may have 254 characters", () => {
    const longest = `a@${"a.".repeat(124)}comm`
    expect(longest).toHaveLength(254)
    expect(parseEmail(longest)).toBe(longest)
    expect(parseEmail(`a${longest}`)).toBeUndefined()
  })
})
