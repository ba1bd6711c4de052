/**
 * Any text in the characters that a PDF's built-in fonts have: those of
 * Windows-1252. No other font comes along, and one taken from the machine would
 * make the same receipt different elsewhere.
 *
 * Marks that the fonts lack are left off ("Dvořák" → "Dvorák"), spaces are made
 * one, what can't be seen goes, and whatever is left that can't be written
 * becomes "…", however long. So a name in another script can't be read here:
 * say something else with it that can be, such as a ticker.
 */

const writable = /^[ -~¡-¬®-ÿ€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]+$/
/** Latin letters that Unicode does not take apart. */
const plain: Readonly<Record<string, string>> = { Đ: "D", đ: "d", Ħ: "H", ħ: "h", ı: "i", Ł: "L", ł: "l", Ŧ: "T", ŧ: "t", "\u2010": "-", "\u2011": "-", "\u2212": "-" }

const spellingOf = (character: string): string => {
  if (writable.test(character)) return character
  const spelling = plain[character] ?? character.normalize("NFKD").replace(/\p{M}/gu, "")
  return spelling === "" || writable.test(spelling) ? spelling : "…"
}

/** At most `charsMax` characters and a "…" for more. */
export const winAnsi = (text: string, charsMax: number): string => {
  const seen = text.slice(0, 4 * charsMax).normalize("NFC").replace(/\s+/g, " ").replace(/[\p{Cc}\p{Cf}]/gu, "")
  const spelled = Array.from(seen, spellingOf).join("").replace(/…+/g, "…").trim()
  return spelled.length > charsMax ? `${spelled.slice(0, charsMax)}…` : spelled
}
