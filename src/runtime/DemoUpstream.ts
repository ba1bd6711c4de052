/**
 * The demo's own agents, served on loopback by the gateway itself, so that a
 * fresh start has something real to call: `POST /echo` answers what it was
 * asked, `POST /summ` a summary made of the text's own sentences.
 *
 * An agent is a pure function of the prompt; the same prompt gets the same
 * answer. The prompt is the body's `prompt`, or the whole body as text when it
 * is no such JSON. Who asks for an event stream, as a chat does, gets the answer
 * word by word. Nothing is kept between calls. Bodies end at 1 MiB. Not a place
 * for credentials: of the headers it reads `accept` alone.
 */
import { type IncomingMessage, type ServerResponse, createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"

export interface DemoUpstream {
  readonly port: number
  /** Cuts what is still open; the gateway has drained by then. */
  readonly stop: () => Promise<void>
}

type Agent = (prompt: string) => string

const bodyBytesMax = 1024 * 1024
/** A summary reads this much: a bigger text must not hold the gateway's own thread. */
const summaryCharsMax = 20_000
const summarySentences = 3
const piecesMax = 80
const pieceMs = 25
/** Longer than an idle connection is kept by the caller's pool, so that it never sends into a closing one. */
const keepAliveMs = 65_000

/** `port` 0, the default, takes a free one. */
export const startDemoUpstream = async ({ port = 0 }: { readonly port?: number } = {}): Promise<DemoUpstream> => {
  const server = createServer({ keepAliveTimeout: keepAliveMs }, (request, response) => {
    answer(request, response).catch(() => response.destroy()) // The caller went away in the middle of its body.
  })
  await new Promise<void>((done, fail) => {
    server.once("error", fail)
    server.listen(port, "127.0.0.1", done)
  })
  return {
    port: (server.address() as AddressInfo).port,
    stop: () => new Promise((done) => {
      server.close(() => done())
      server.closeAllConnections()
    })
  }
}

const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
  const agent = agents.get(request.url?.split("?", 1)[0] ?? "")
  if (agent === undefined) return send(response, 404, { error: "no such agent" })
  if (request.method !== "POST") return send(response, 405, { error: "POST a prompt" }, { allow: "POST" })
  const body = await read(request)
  if (body === undefined) return send(response, 413, { error: "the body is longer than 1 MiB" })
  const output = agent(promptOf(body))
  if (request.headers.accept?.includes("text/event-stream") !== true) return send(response, 200, { output })
  await stream(response, output)
}

/** As a language model would: in pieces of some words, the whole within some two seconds. */
const stream = async (response: ServerResponse, output: string): Promise<void> => {
  const words = output.match(/\s*\S+\s*$|\s*\S+/g) ?? [output]
  const wordsPerPiece = Math.ceil(words.length / piecesMax)
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" })
  for (let at = 0; at < words.length && !response.destroyed; at += wordsPerPiece) {
    if (at > 0) await sleep(pieceMs)
    response.write(`data: ${JSON.stringify({ choices: [{ delta: { content: words.slice(at, at + wordsPerPiece).join("") } }] })}\n\n`)
  }
  response.end("data: [DONE]\n\n")
}

const send = (response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void => {
  const text = Buffer.from(JSON.stringify(body))
  response.writeHead(status, { "content-type": "application/json", "content-length": text.length, ...headers }).end(text)
}

/** A longer body is read to its end, so that its sender sees the refusal, but not kept. */
const read = async (request: IncomingMessage): Promise<string | undefined> => {
  const chunks: Array<Buffer> = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes <= bodyBytesMax) chunks.push(chunk)
  }
  return bytes > bodyBytesMax ? undefined : Buffer.concat(chunks).toString("utf8")
}

const promptOf = (body: string): string => {
  try {
    const { prompt } = JSON.parse(body) as { readonly prompt?: unknown }
    return typeof prompt === "string" ? prompt : body
  } catch {
    return body
  }
}

const echo: Agent = (prompt) => prompt

/** The sentences whose words the text uses most, in their own order. */
export const summarise: Agent = (prompt) => {
  const sentences = prompt.slice(0, summaryCharsMax).match(/[^.!?\n]+[.!?]*/g)?.map((sentence) => sentence.trim()).filter((sentence) => sentence !== "") ?? []
  if (sentences.length <= summarySentences) return sentences.join(" ")
  const uses = new Map<string, number>()
  for (const word of sentences.flatMap(wordsOf)) uses.set(word, (uses.get(word) ?? 0) + 1)
  // By the mean, or the longest sentence would always win.
  const weight = (sentence: string): number => {
    const words = wordsOf(sentence)
    return words.reduce((sum, word) => sum + uses.get(word)!, 0) / (words.length || 1)
  }
  return sentences
    .map((sentence, at) => ({ sentence, at, weight: weight(sentence) }))
    .sort((a, b) => b.weight - a.weight || a.at - b.at)
    .slice(0, summarySentences)
    .sort((a, b) => a.at - b.at)
    .map(({ sentence }) => sentence)
    .join(" ")
}

/** Words that carry a meaning; the short ones mostly don't. */
const wordsOf = (sentence: string): ReadonlyArray<string> => sentence.toLowerCase().match(/\p{L}{4,}/gu) ?? []

const agents: ReadonlyMap<string, Agent> = new Map([["/echo", echo], ["/summ", summarise]])
