import { Schema } from "effect"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import type { News } from "../../../src/cluster/Bus.ts"
import { BadFrame, Frames, frameBytesMax, packNews, serialization, unpackNews } from "../../../src/cluster/Wire.ts"

const value = fc.anything({ withBigInt: false, withNullPrototype: false, withMap: false, withSet: false, withDate: false, withTypedArray: false, withSparseArray: false, withObjectString: false, values: [fc.string(), fc.integer(), fc.boolean(), fc.constant(null), fc.double({ noNaN: true }).filter((number) => !Object.is(number, -0))] })
  .filter((each) => !JSON.stringify(each)?.includes("__proto__"))
const joined = (parts: ReadonlyArray<Uint8Array>): Buffer => Buffer.concat(parts)

describe("frames", () => {
  it("come out as they went in, however the bytes are cut", () => {
    fc.assert(fc.property(fc.array(value, { maxLength: 6 }), fc.array(fc.nat(), { maxLength: 12 }), (values, places) => {
      const writer = new Frames(() => "secret")
      const reader = new Frames(() => "secret")
      const bytes = joined(values.map((each) => writer.pack(each)))
      const cuts = [...places.map((place) => bytes.length === 0 ? 0 : place % bytes.length), bytes.length].sort((a, b) => a - b)
      const read: Array<unknown> = []
      let from = 0
      for (const to of cuts) {
        read.push(...reader.unpack(bytes.subarray(from, to)))
        from = to
      }
      expect(read).toEqual(values)
    }))
  })

  it("come out when they come byte by byte", () => {
    const reader = new Frames(() => "secret")
    const bytes = joined([new Frames(() => "secret").pack({ text: "one" }), new Frames(() => "secret").pack(["two"])])
    expect([...bytes].flatMap((byte) => reader.unpack(Uint8Array.of(byte)))).toEqual([{ text: "one" }, ["two"]])
  })

  it("of which one byte was changed end the connection before anything is read of them", () => {
    const bytes = joined([new Frames(() => "secret").pack({ text: "a message" })])
    fc.assert(fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (place, change) => {
      const changed = Buffer.from(bytes)
      changed[place] = changed[place]! ^ change
      const reader = new Frames(() => "secret")
      const read: Array<unknown> = []
      try {
        read.push(...reader.unpack(changed))
        // A length that was raised waits for bytes; those that follow can't prove it.
        read.push(...reader.unpack(Buffer.alloc(frameBytesMax)))
        expect.unreachable("it was taken")
      } catch (error) {
        expect(error).toBeInstanceOf(BadFrame)
      }
      expect(read).toEqual([])
    }))
  })

  it("with another secret, and all that follow them, are refused", () => {
    const reader = new Frames(() => "secret")
    expect(() => reader.unpack(new Frames(() => "another").pack(1))).toThrow(BadFrame)
    expect(() => reader.unpack(new Frames(() => "secret").pack(1))).toThrow(BadFrame)
  })

  it("that say they are too long are refused before their bytes have come", () => {
    const head = Buffer.alloc(20)
    head.writeUInt32BE(frameBytesMax + 1)
    expect(() => new Frames(() => "secret").unpack(head)).toThrow(BadFrame)
  })

  it("of garbage are refused, and never anything else", () => {
    fc.assert(fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), (bytes) => {
      const reader = new Frames(() => "secret")
      try {
        expect(reader.unpack(bytes)).toEqual([])
      } catch (error) {
        expect(error).toBeInstanceOf(BadFrame)
      }
    }))
  })

  it("carry amounts of any size exactly, through their schema", () => {
    const { codecFor, makeUnsafe } = serialization(() => "secret")
    const amount = codecFor(Schema.Struct({ credits: Schema.BigInt }))
    fc.assert(fc.property(fc.bigInt({ min: -(2n ** 80n), max: 2n ** 80n }), (credits) => {
      const sent = makeUnsafe().encode(Schema.encodeSync(amount)({ credits })) as Uint8Array
      expect(makeUnsafe().decode(sent).map((each) => Schema.decodeUnknownSync(amount)(each))).toEqual([{ credits }])
    }))
  })
})

describe("news", () => {
  it("come out as they went in, versions exact", () => {
    const all: ReadonlyArray<News> = [
      { _tag: "agent", id: "a", version: 2n ** 62n + 1n }, { _tag: "account", id: "b", token: undefined }, { _tag: "account", id: "b", token: 3n },
      { _tag: "revoked", subjectId: "s" }, { _tag: "webhooks", accountId: "w" }, { _tag: "session", id: "x", term: 1n },
      { _tag: "recall", accountId: "r", subjectId: undefined }, { _tag: "missed" }
    ]
    expect(all.map((news) => unpackNews(packNews(news)))).toEqual(all)
  })

  it("that nobody wrote are none", () => {
    for (const bytes of [Buffer.from([]), Buffer.from([0x01]), Buffer.from([0xc1]), Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff])]) expect(unpackNews(bytes)).toBeUndefined()
  })
})
