import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { winAnsi } from "../../../src/mail/winAnsi.ts"

describe("a text for a PDF's built-in fonts", () => {
  it.each([
    ["plain", "Summarizer 2.0", "Summarizer 2.0"],
    ["Western European", "Größe – naïve “café”, 5 €", "Größe – naïve “café”, 5 €"],
    ["composed of a letter and a mark", "cafe\u0301", "café"],
    ["with marks that the fonts lack", "Dvořák, Nguyễn", "Dvorák, Nguyen"],
    ["with letters that Unicode does not take apart", "Łódź, İstanbul ılık", "Lódz, Istanbul ilik"],
    ["partly in another script", "文档 Pro 🚀", "… Pro …"],
    ["in another script", "Сводка", "…"],
    ["of ligatures and wide letters", "ﬁle ＡＢ", "file AB"],
    ["with what turns text around or can't be seen", "a\u202Eb\u200B\u0000c\u00ADd", "abcd"],
    ["of several lines", " a\r\n\tb ", "a b"],
    ["with half a character", "a\uD800b", "a…b"],
    ["longer than allowed", "x".repeat(31), `${"x".repeat(30)}…`]
  ])("%s", (_, text, spelled) => expect(winAnsi(text, 30)).toBe(spelled))

  it("is short, in one line, and of characters that they have, whatever it was", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), (text) => {
      expect(winAnsi(text, 40)).toMatch(/^[ -~¡-¬®-ÿ€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]{0,41}$/)
    }))
  })
})
