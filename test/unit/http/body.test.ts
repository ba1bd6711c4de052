import { describe, expect, it } from "vitest"
import { InvalidRequest } from "../../../src/domain/errors.ts"
import { parseBody } from "../../../src/http/body.ts"

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

describe("a JSON body", () => {
  it("with decimals hands every number over as the text that was written", () => {
    const text = `{"a": 0.1, "b": [1, 12345678901234567890.000001, -0, 1e3], "c": "2", "d": true, "e": null}`
    expect(parseBody(bytes(text), true)).toEqual({ value: { a: "0.1", b: ["1", "12345678901234567890.000001", "-0", "1e3"], c: "2", d: true, e: null } })
    expect(parseBody(bytes(`{"a": 0.1}`), false)).toEqual({ value: { a: 0.1 } })
  })

  it("that is empty is no value at all", () => {
    expect(parseBody(new Uint8Array(0), false)).toEqual({ value: undefined })
  })

  it.each([true, false])("with a key __proto__ changes no prototype (decimals: %s)", (decimals) => {
    const parsed = parseBody(bytes(`{"__proto__": {"admin": true}, "constructor": {"prototype": {"admin": true}}}`), decimals)
    expect("value" in parsed && Object.getPrototypeOf(parsed.value)).toBe(Object.prototype)
    expect(({} as Record<string, unknown>)["admin"]).toBeUndefined()
  })

  it.each([true, false])("keeps the last of a repeated key (decimals: %s)", (decimals) => {
    expect(parseBody(bytes(`{"a": "x", "a": "y"}`), decimals)).toEqual({ value: { a: "y" } })
  })

  it.each(["{", "[1,]", "nope", "{\"a\": 01}", "\u{feff}{}", "{}{}"])("is malformed: %j", (text) => {
    for (const decimals of [true, false]) expect(parseBody(bytes(text), decimals)).toMatchObject({ _tag: "InvalidRequest", malformed: true })
  })

  it("is malformed when it is not UTF-8", () => {
    expect(parseBody(Uint8Array.of(0x22, 0xff, 0x22), false)).toMatchObject({ malformed: true })
  })

  it("nested beyond the stack is refused, not fatal", () => {
    const deep = bytes("[".repeat(60_000))
    for (const decimals of [true, false]) expect(parseBody(deep, decimals)).toBeInstanceOf(InvalidRequest)
    const closed = bytes(`${"[".repeat(30_000)}"\\u0000"${"]".repeat(30_000)}`)
    for (const decimals of [true, false]) expect(parseBody(closed, decimals)).toBeInstanceOf(InvalidRequest)
  })

  it.each([
    [`{"a": {"b": ["ok", "x\\u0000y"]}}`, ["body", "a", "b", "1"]],
    [`{"a": "\\ud800"}`, ["body", "a"]],
    [`{"a": "\\udc00\\ud800"}`, ["body", "a"]],
    [`{"k\\u0000": 1}`, ["body"]]
  ])("with a character that can't be stored is refused where it stands: %s", (text, loc) => {
    expect(parseBody(bytes(text), false)).toMatchObject({ malformed: false, issues: [{ loc }] })
  })

  it("may hold escaped pairs and other controls", () => {
    expect(parseBody(bytes(`{"a": "\\ud83d\\ude00 \\u0001"}`), false)).toEqual({ value: { a: "😀 \u0001" } })
  })
})
