/**
 * What should never come over a chat socket: frames that are no frames, JSON that
 * is none, and JSON that says nothing known.
 */
import { clientFrame, opcodes } from "./RawSocket.ts"
import type { Random } from "./Random.ts"

const kibibyte = 1024

const bytes = (random: Random, length: number): Buffer => {
  const noise = Buffer.allocUnsafe(length)
  for (let at = 0; at < length; at++) noise[at] = random.below(256)
  return noise
}

/** As the sender of a frame may get its head wrong. */
const headed = (first: number, second: number, ...rest: ReadonlyArray<number | Buffer>): Buffer =>
  Buffer.concat([Buffer.from([first, second]), ...rest.map((part) => typeof part === "number" ? Buffer.from([part]) : part)])

const mask = Buffer.alloc(4)

const valid: ReadonlyArray<object> = [
  { type: "auth", token: "autx_live_0000000000000000000000000000000000000000000" },
  { type: "message", prompt: "hello, hello", id: "m-1" },
  { type: "message", prompt: "\u00e4\u20ac\ud83d\ude00" },
  { type: "cancel" }, { type: "ping" }
]

/** One frame's text with some bytes changed, left out, doubled, or moved. */
const mutated = (random: Random): Buffer => {
  let text = Buffer.from(JSON.stringify(random.of(valid)))
  for (let left = 1 + random.below(4); left > 0; left--) {
    const at = random.below(text.length)
    switch (random.below(4)) {
      case 0: text[at] = random.below(256); break
      case 1: text = Buffer.concat([text.subarray(0, at), text.subarray(at + 1 + random.below(3))]); break
      case 2: text = Buffer.concat([text.subarray(0, at), text.subarray(random.below(at + 1))]); break
      default: text = Buffer.concat([text.subarray(0, at), bytes(random, 1 + random.below(8)), text.subarray(at)])
    }
    if (text.length === 0) return text
  }
  return text
}

/** Values where others belong. */
const misfits: ReadonlyArray<unknown> = [
  null, true, 0, -1, 1e308, 2 ** 53, "", " ", "\0", "\ud800", [], [[]], {}, { type: "ping" }, "__proto__", "constructor", "a".repeat(300), "a".repeat(5_000)
]
const mistyped = (random: Random): string => {
  const frame: Record<string, unknown> = { ...random.of(valid) }
  for (let left = 1 + random.below(3); left > 0; left--) frame[random.of(["type", "token", "session_id", "prompt", "id", "toString", "__proto__", "x"])] = random.of(misfits)
  return JSON.stringify(frame)
}

const control = (random: Random): string => {
  const at = String.fromCharCode(random.below(32))
  return random.chance(0.5) ? `{"type":"message","prompt":"a${at}b"}` : `{"type":"message","prompt":"a\\u00${random.below(32).toString(16).padStart(2, "0")}b"}`
}

const nested = (random: Random): string => {
  const depth = 10 ** (1 + random.below(5))
  const [open, close] = random.of([["[", "]"], ["{\"a\":", "}"]] as const)
  const inside = `${open.repeat(depth)}1${random.chance(0.8) ? close.repeat(depth) : ""}`
  return random.chance(0.5) ? inside : `{"type":"message","prompt":${inside}}`
}

/** Good JSON and bad, in a good frame. */
const texts: ReadonlyArray<(random: Random) => string | Buffer> = [
  mutated, mutated, mistyped, mistyped, control, nested,
  (random) => bytes(random, random.below(200)),
  (random) => JSON.stringify(random.of(misfits)),
  (random) => JSON.stringify({ type: random.of(["session", "chunk", "done", "billing", "error", "pong", "notice", "AUTH", "message ", "subscribe"]), prompt: "x", data: "x" }),
  (random) => JSON.stringify(Array.from({ length: random.below(20) }, () => random.of(valid))),
  (random) => `{"type":"message","prompt":"${"x".repeat(random.below(300 * kibibyte))}${random.of(["\"}", "", "\"", "\\"])}`,
  // Half a character, a whole one too long, one that is none.
  (random) => Buffer.concat([Buffer.from("{\"type\":\"message\",\"prompt\":\""), random.of([Buffer.from([0xff]), Buffer.from([0xc0, 0x80]), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from([0xf0, 0x9f, 0x98]), Buffer.from([0xf8, 0x88, 0x80, 0x80, 0x80])]), Buffer.from("\"}")])
]

/** Frames that no client may send, or that are not whole. */
const broken: ReadonlyArray<(random: Random) => Buffer> = [
  (random) => bytes(random, 1 + random.below(64)),
  // Opcodes and bits that mean nothing.
  (random) => headed(0x80 | random.of([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), 0x80, mask),
  (random) => headed(0x81 | random.of([0x40, 0x20, 0x10, 0x70]), 0x82, mask, Buffer.from("{}")),
  // Without its mask.
  () => headed(0x81, 2, Buffer.from("{}")),
  // The rest of a message that has not begun, and a beginning in the middle of one.
  () => headed(0x80, 0x82, mask, Buffer.from("{}")),
  () => Buffer.concat([headed(0x01, 0x81, mask, Buffer.from("{")), headed(0x81, 0x82, mask, Buffer.from("{}"))]),
  // A control frame in pieces, or a long one.
  () => headed(0x09, 0x80, mask),
  () => headed(0x89, 0xfe, 0, 200, mask, Buffer.alloc(200)),
  (random) => headed(0x88, 0x80 | 1, mask, random.below(256)),
  (random) => headed(0x88, 0x84, mask, 3, 232, 0xff, random.below(256)),
  // A frame that says it is longer than it is, and longer than any may be.
  (random) => headed(0x81, 0x80 | 100, mask, bytes(random, random.below(100))),
  (random) => headed(0x81, 0xff, Buffer.from([0, 0, 0, 0, 0, random.of([16, 32, 48, 255]), 0, 0]), mask, bytes(random, 10)),
  () => headed(0x81, 0xff, Buffer.alloc(8, 0xff), mask),
  (random) => clientFrame(opcodes.binary, bytes(random, random.below(300)))
]

/** From a MiB to three, as one frame or in pieces. */
const huge = (random: Random): Buffer => {
  const length = kibibyte * kibibyte * (1 + 2 * random.next()) | 0
  const payload = Buffer.alloc(length, random.of([0x20, 0x61, 0x5b]))
  return random.chance(0.7) ? clientFrame(opcodes.text, payload) : inPieces(random, payload, 300_000)
}

/** A text message in some continuation frames. */
const inPieces = (random: Random, payload: Buffer, lengthMax: number): Buffer => {
  const parts: Array<Buffer> = []
  for (let at = 0; at < payload.length || parts.length === 0;) {
    const part = clientFrame(at === 0 ? opcodes.text : 0, payload.subarray(at, at += 1 + random.below(lengthMax)))
    if (at < payload.length) part[0]! &= 0x7f
    parts.push(part)
  }
  return Buffer.concat(parts)
}

/** One whole text message of nonsense; some are good by chance. */
export const nonsense = (random: Random): Buffer => {
  if (random.chance(0.005)) return huge(random)
  const text = Buffer.from(random.of(texts)(random) as string)
  return random.chance(0.85) ? clientFrame(opcodes.text, text) : inPieces(random, text, 1 + random.below(text.length + 1))
}

/** What is no frame of a client, or only a part of one. */
export const brokenFrame = (random: Random): Buffer => random.of(broken)(random)
