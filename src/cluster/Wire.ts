/**
 * What nodes write to each other: RPC messages in frames on a TCP connection,
 * and news through Redis. Both are MessagePack.
 *
 *     frame = length of the body (4 bytes, big-endian) · HMAC-SHA-256 of the body, cut to 16 bytes · body
 *
 * Guarantee. A body is unpacked only after its code was proved with the
 * cluster's secret, and no frame makes a node keep more than `frameBytesMax`:
 * a stranger who reaches the port can do nothing. A bad frame ends the
 * connection, and nothing behind it is read.
 *
 * It is not encrypted, and a frame that was recorded can be sent again: asks
 * are harmless when repeated (AccountRpc.ts). Schemas encode values to JSON
 * first, so that a bigint is exact.
 */
import { Schema } from "effect"
import { RpcSerialization } from "effect/rpc"
import { Packr } from "msgpackr"
import { createHmac, timingSafeEqual } from "node:crypto"
import type { News } from "./Bus.ts"

/** An ask takes some 600 bytes, its answer less. */
export const frameBytesMax = 256 * 1024
const lengthBytes = 4
const codeBytes = 16
const headBytes = lengthBytes + codeBytes

const packr = new Packr({ useRecords: false })

/** Too long, or not written by a node of this cluster. Its tag is the one on which effect's server ends a connection instead of answering. */
export class BadFrame extends Error {
  override readonly name = "BadFrame"
  readonly _tag = "MaxBufferSizeExceeded"
}

/** Frames of one connection, in both directions. */
export class Frames {
  private readonly secret: () => string
  private chunks: Array<Uint8Array> = []
  private bytes = 0
  /** With how many bytes the frame at the front is whole. */
  private awaited = headBytes
  private isBroken = false

  /** `secret`: the cluster's, which is another after Redis was emptied. */
  constructor(secret: () => string) {
    this.secret = secret
  }

  pack(value: unknown): Uint8Array {
    const body = packr.pack(value)
    const head = Buffer.allocUnsafe(lengthBytes)
    head.writeUInt32BE(body.length)
    return Buffer.concat([head, this.codeOf(body), body])
  }

  /** Every value that is whole now; throws `BadFrame` from the first bad frame on. */
  unpack(chunk: Uint8Array): Array<unknown> {
    if (this.isBroken) throw new BadFrame("the connection has had a bad frame")
    this.chunks.push(chunk)
    this.bytes += chunk.length
    const values: Array<unknown> = []
    try {
      while (this.bytes >= this.awaited) this.read(values)
    } catch (cause) {
      this.isBroken = true
      this.chunks = []
      throw cause instanceof BadFrame ? cause : new BadFrame("a frame can't be read")
    }
    return values
  }

  /** One step forward: learns how long the frame is, or takes it off. */
  private read(values: Array<unknown>): void {
    const all = this.chunks.length === 1 ? this.chunks[0] as Uint8Array : Buffer.concat(this.chunks)
    this.chunks = [all]
    const length = new DataView(all.buffer, all.byteOffset).getUint32(0)
    if (length > frameBytesMax) throw new BadFrame("a frame is too long")
    this.awaited = headBytes + length
    if (this.bytes < this.awaited) return
    const body = all.subarray(headBytes, this.awaited)
    if (!timingSafeEqual(all.subarray(lengthBytes, headBytes), this.codeOf(body))) throw new BadFrame("a frame is not of this cluster")
    values.push(packr.unpack(body))
    this.chunks = [all.subarray(this.awaited)]
    this.bytes -= this.awaited
    this.awaited = headBytes
  }

  private codeOf(body: Uint8Array): Buffer {
    return createHmac("sha256", this.secret()).update(body).digest().subarray(0, codeBytes)
  }
}

const encoder = new TextEncoder()

export const serialization = (secret: () => string) => RpcSerialization.RpcSerialization.of({
  contentType: "application/vnd.tollgate.frames",
  includesFraming: true,
  codecFor: Schema.toCodecJson as RpcSerialization.CodecFor,
  makeUnsafe: () => {
    const frames = new Frames(secret)
    return {
      decode: (data) => frames.unpack(typeof data === "string" ? encoder.encode(data) : data).flat(),
      encode: (message) => frames.pack(message)
    }
  }
})

export const packNews = (news: News): Buffer => packr.pack(news)

/** `undefined` for what no node of this version has written. */
export const unpackNews = (bytes: Uint8Array): News | undefined => {
  try {
    const news: unknown = packr.unpack(bytes)
    return typeof news === "object" && news !== null && "_tag" in news ? news as News : undefined
  } catch {
    return undefined
  }
}
