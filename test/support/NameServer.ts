/**
 * A DNS server of a test, and how a gateway process comes to ask it: names that
 * a test made up lead where it says. Every other name does not exist.
 */
import { type Socket, createSocket } from "node:dgram"
import { once } from "node:events"

const ipv4 = 1
const ipv6 = 28

/** Record data of an address; IPv6 is written out in eight groups. */
const dataOf = (address: string): Buffer => address.includes(":")
  ? Buffer.from(address.split(":").map((group) => group.padStart(4, "0")).join(""), "hex")
  : Buffer.from(address.split(".").map(Number))

export class NameServer {
  /** The names that were asked for, each once for IPv4 and once for IPv6. */
  readonly asked: Array<string> = []
  readonly #socket: Socket = createSocket("udp4")
  readonly #addresses: ReadonlyMap<string, ReadonlyArray<string>>

  constructor(addresses: Readonly<Record<string, ReadonlyArray<string>>>) {
    this.#addresses = new Map(Object.entries(addresses))
    this.#socket.on("message", (query, { address, port }) => this.#socket.send(this.#answer(query), port, address))
  }

  async listen(): Promise<this> {
    this.#socket.bind(0, "127.0.0.1")
    await once(this.#socket, "listening")
    return this
  }

  /** Makes every resolver of a Node process ask this server, as its machine's resolv.conf would. */
  get env(): Readonly<Record<string, string>> {
    const script = `import dns from "node:dns"
      import { syncBuiltinESMExports } from "node:module"
      const Resolver = dns.Resolver
      dns.Resolver = class extends Resolver { constructor(options) { super(options); this.setServers(["127.0.0.1:${this.#socket.address().port}"]) } }
      syncBuiltinESMExports()`
    return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` }
  }

  close(): void {
    this.#socket.close()
  }

  /** RFC 1035 §4.1: the header, the question as it came, and a record for each address of the family asked for. */
  #answer(query: Buffer): Buffer {
    const labels: Array<string> = []
    let at = 12
    for (let length = query[at]!; length > 0; length = query[at]!) {
      labels.push(query.toString("latin1", at + 1, at + 1 + length))
      at += 1 + length
    }
    const question = query.subarray(12, at + 5)
    const family = query.readUInt16BE(at + 1)
    const name = labels.join(".").toLowerCase()
    this.asked.push(name)
    const known = this.#addresses.get(name)
    const data = (known ?? []).map(dataOf).filter(({ length }) => family === (length === 4 ? ipv4 : ipv6))
    const header = Buffer.from([query[0]!, query[1]!, 0x81, known === undefined ? 0x83 : 0x80, 0, 1, 0, data.length, 0, 0, 0, 0])
    const records = data.flatMap((bytes) => [Buffer.from([0xc0, 12, 0, family, 0, 1, 0, 0, 0, 0, 0, bytes.length]), bytes])
    return Buffer.concat([header, question, ...records])
  }
}
