/**
 * A real SMTP server on loopback that keeps what it is given, and refuses what
 * a test tells it to refuse. A letter is read back from its bytes: headers
 * unfolded and decoded, text, HTML and the PDF as they were before they were
 * encoded for the way.
 */
import { once } from "node:events"
import type { AddressInfo } from "node:net"
import { SMTPServer, type SMTPServerOptions } from "smtp-server"
import { selfSigned, selfSignedKey } from "./selfSigned.ts"

export interface ReceivedLetter {
  readonly from: string
  readonly to: ReadonlyArray<string>
  /** By lower-case name; of several of a name, joined by a line's end. */
  readonly headers: ReadonlyMap<string, string>
  readonly text: string
  readonly html: string
  readonly pdf: { readonly name: string; readonly content: Buffer } | undefined
  readonly encrypted: boolean
  readonly user: string | undefined
}

/** `data`: the whole letter has come, its answer has not left. */
export type Stage = "login" | "sender" | "recipient" | "data"

export interface MailServerOptions {
  /** As it was before it went away. */
  readonly port?: number
  /** Asks everybody to log in with it. */
  readonly login?: { readonly user: string; readonly password: string }
  readonly tls?: "none" | "starttls" | "implicit"
  /** An answer such as "550 5.1.1 unknown", or none: accepted. */
  readonly refuse?: (stage: Stage, about: { readonly recipient?: string; readonly letter?: ReceivedLetter }) => string | undefined | Promise<string | undefined>
}

interface Part {
  readonly headers: ReadonlyMap<string, string>
  readonly content: Buffer
}

/** RFC 2047, of one charset. */
const decodeWords = (text: string): string => text.replace(/(=\?utf-8\?[bq]\?[^?]*\?=)\s+(?==\?)/gi, "$1").replace(/=\?utf-8\?([bq])\?([^?]*)\?=/gi, (_, encoding: string, word: string) =>
  encoding.toLowerCase() === "b" ? Buffer.from(word, "base64").toString() : decodeQuoted(word.replaceAll("_", " ")).toString())

const decodeQuoted = (text: string): Buffer =>
  Buffer.from(text.replace(/=\r?\n/g, "").replace(/=([0-9A-F]{2})/gi, (_, hex: string) => String.fromCharCode(parseInt(hex, 16))), "latin1")

const headersOf = (head: string): ReadonlyMap<string, string> => {
  const headers = new Map<string, string>()
  for (const line of head.replace(/\r\n[ \t]+/g, " ").split("\r\n")) {
    const at = line.indexOf(":")
    const name = line.slice(0, at).toLowerCase()
    headers.set(name, [...headers.has(name) ? [headers.get(name)!] : [], decodeWords(line.slice(at + 1).trim())].join("\n"))
  }
  return headers
}

const partsOf = (source: string): ReadonlyArray<Part> => {
  const end = source.indexOf("\r\n\r\n")
  const headers = headersOf(source.slice(0, end))
  const body = source.slice(end + 4)
  const [, boundary] = /boundary="?([^";]+)"?/.exec(headers.get("content-type") ?? "") ?? []
  if (boundary !== undefined) return [{ headers, content: Buffer.alloc(0) }, ...body.split(`--${boundary}`).slice(1, -1).flatMap((part) => partsOf(part.replace(/^\r\n/, "").replace(/\r\n$/, "")))]
  const encoding = headers.get("content-transfer-encoding")
  const content = encoding === "base64" ? Buffer.from(body, "base64") : encoding === "quoted-printable" ? decodeQuoted(body) : Buffer.from(body, "latin1")
  return [{ headers, content }]
}

const letterOf = (source: string): Pick<ReceivedLetter, "headers" | "text" | "html" | "pdf"> => {
  const parts = partsOf(source)
  const find = (type: string) => parts.find(({ headers }) => headers.get("content-type")?.startsWith(type) === true)
  const pdf = find("application/pdf")
  return {
    headers: parts[0]!.headers,
    text: find("text/plain")?.content.toString().replaceAll("\r\n", "\n") ?? "",
    html: find("text/html")?.content.toString().replaceAll("\r\n", "\n") ?? "",
    pdf: pdf && { name: /filename="?([^";]+)"?/.exec(pdf.headers.get("content-disposition") ?? "")?.[1] ?? "", content: pdf.content }
  }
}

export class MailServer {
  readonly port: number
  /** What was accepted, in order. */
  readonly letters: Array<ReceivedLetter> = []
  readonly #server: SMTPServer
  #arrivals: Array<() => void> = []

  static async start(options: MailServerOptions = {}): Promise<MailServer> {
    const made = new MailServer(options)
    made.#server.listen(options.port ?? 0, "127.0.0.1")
    await once(made.#server.server, "listening")
    return Object.assign(made, { port: (made.#server.server.address() as AddressInfo).port })
  }

  private constructor({ login, tls = "none", refuse = () => undefined }: MailServerOptions) {
    this.port = 0
    const judge = async (stage: Stage, about: Parameters<typeof refuse>[1] = {}): Promise<Error | null> => {
      const answer = await refuse(stage, about)
      return answer === undefined ? null : Object.assign(new Error(answer.slice(4)), { responseCode: Number(answer.slice(0, 3)) })
    }
    const events: SMTPServerOptions = {
      onAuth: ({ username, password }, _, done) => void judge("login").then((refusal) =>
        refusal === null && username === login?.user && password === login?.password ? done(null, { user: username }) : done(refusal ?? new Error("535 5.7.8 wrong"))),
      onMailFrom: (_, __, done) => void judge("sender").then(done),
      onRcptTo: ({ address }, _, done) => void judge("recipient", { recipient: address }).then(done),
      onData: (stream, { envelope, secure, user }, done) => {
        const chunks: Array<Buffer> = []
        stream.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
          const letter: ReceivedLetter = {
            ...letterOf(Buffer.concat(chunks).toString("latin1")),
            from: envelope.mailFrom === false ? "" : envelope.mailFrom.address,
            to: envelope.rcptTo.map(({ address }) => address),
            encrypted: secure,
            user: user as string | undefined
          }
          void judge("data", { letter }).then((refusal) => {
            if (refusal === null) this.letters.push(letter)
            for (const arrived of this.#arrivals.splice(0)) arrived()
            done(refusal)
          })
        })
      }
    }
    this.#server = new SMTPServer({
      ...events, logger: false, key: selfSignedKey, cert: selfSigned, secure: tls === "implicit", hideSTARTTLS: tls !== "starttls",
      authOptional: login === undefined, disabledCommands: [...login === undefined ? ["AUTH"] : [], ...tls === "starttls" ? [] : ["STARTTLS"]], closeTimeout: 100
    })
    this.#server.on("error", () => {}) // A client that was killed.
  }

  /** Resolves when so many letters were accepted. */
  async received(count: number): Promise<ReadonlyArray<ReceivedLetter>> {
    while (this.letters.length < count) await new Promise<void>((arrived) => this.#arrivals.push(arrived))
    return this.letters
  }

  connections(): number {
    return this.#server.connections.size
  }

  close(): Promise<void> {
    return new Promise((done) => this.#server.close(() => done()))
  }
}
