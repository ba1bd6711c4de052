/**
 * One turn's way to its agent and back: the prompt goes out once, the answer's
 * text comes as it is read.
 *
 *     asked ──head 2xx──▶ streaming ──end, [DONE]──▶ ended
 *       └──────────────────┴── failure, abort ─────▶ over
 *
 * Guarantee: its owner hears exactly one of `turnEnded` and `turnFailed`, or
 * neither after `abort`. Text that came in the same read as the end is not told
 * before it: it waits in `rest` until the turn is paid for. Memory is bounded by
 * `chatAnswerCharsMax` for the text and by the reader's bounds for the rest.
 */
import { limits } from "../../config.ts"
import type { Agent } from "../../domain/agent.ts"
import { AgentAnswerUnusable } from "../../domain/chat.ts"
import type { AgentUnavailable } from "../../domain/errors.ts"
import type { OrderId } from "../../domain/ids.ts"
import type { Header } from "../Relay.ts"
import { targetOf } from "../upstream/agentTarget.ts"
import { AnswerFilter, requestHeaders } from "../upstream/hopByHop.ts"
import type { Exchange, Upstream, UpstreamHandler } from "../upstream/Upstream.ts"
import { type DeltaReader, makeDeltaReader } from "./DeltaReader.ts"

export interface TurnOwner {
  /** `false`: the client takes no more for now; `resume` when it does. */
  turnText(turn: ChatTurn, text: string): boolean
  turnEnded(turn: ChatTurn): void
  turnFailed(turn: ChatTurn, error: AgentUnavailable | AgentAnswerUnusable): void
}

const filter = new AnswerFilter(["set-cookie"])
const readerBounds = { lineBytesMax: limits.chatLineBytesMax, bodyBytesMax: limits.chatStreamBytesMax, wholeBytesMax: limits.chatJsonBytesMax }

/** An agent that said it is done has this long to end its answer, so that its connection can be used again. */
const tailMs = 1_000

/** Turns that have read something: all of them are told of together, which costs less than a task for each. */
let settling: Array<ChatTurn> = []

const settleAll = (): void => {
  const turns = settling
  settling = []
  for (const turn of turns) turn.settle()
}

export class ChatTurn implements UpstreamHandler {
  readonly id: OrderId
  readonly prompt: string
  readonly messageId: string | undefined
  readonly startedAtMs: number
  /** Of the agent's answer; 503 until there is one. */
  status = 503
  readonly #owner: TurnOwner
  readonly #parts: Array<string> = []
  #charsTold = 0
  /** Read but not told. */
  #fresh = ""
  #settling = false
  #agent!: Agent
  #reader: DeltaReader | undefined
  #exchange: Exchange | undefined
  #phase: "preparing" | "asked" | "streaming" | "ended" | "over" = "preparing"

  constructor(owner: TurnOwner, id: OrderId, prompt: string, messageId: string | undefined, nowMs: number) {
    this.#owner = owner
    this.id = id
    this.prompt = prompt
    this.messageId = messageId
    this.startedAtMs = nowMs
  }

  get isOver(): boolean {
    return this.#phase === "over"
  }

  /** The agent's answer is complete: from here on the turn is charged, whatever its client does. */
  get hasEnded(): boolean {
    return this.#phase === "ended"
  }

  /** The agent's work has begun to reach the buyer. */
  get hasText(): boolean {
    return this.#charsTold > 0 || this.#fresh !== ""
  }

  /** What was told so far. */
  get told(): string {
    if (this.#parts.length > 1) this.#parts.splice(0, this.#parts.length, this.#parts.join(""))
    return this.#parts[0] ?? ""
  }

  /** The whole answer of a turn that has ended. */
  get text(): string {
    return this.told + this.#fresh
  }

  /** What came with the end, once: it counts as told from then on. */
  takeRest(): string {
    const rest = this.#fresh
    this.#tell(rest)
    return rest
  }

  ask(upstream: Upstream["Service"], agent: Agent, credential: ReadonlyArray<Header>, body: object): void {
    this.#agent = agent
    this.#phase = "asked"
    this.#exchange = upstream.send({
      agentId: agent.id, agent: agent.ticker, ownerId: agent.ownerId, target: targetOf(agent), query: "", method: "POST",
      headers: requestHeaders([], [
        ["content-type", "application/json"], ["accept", "text/event-stream, application/json"],
        ["x-autx-protocol", "chat/1"], ["x-autx-request-id", this.id], ...credential
      ]),
      body: Buffer.from(JSON.stringify(body)),
      answer: filter
    }, this)
  }

  resume(): void {
    this.#exchange?.resume()
  }

  /** Nothing more is heard of the turn. */
  abort(): void {
    this.#phase = "over"
    this.#exchange?.abort()
  }

  head(status: number, headers: ReadonlyArray<Header>): void {
    if (this.#phase !== "asked") return
    this.status = status
    if (status < 200 || status > 299) return this.#unusable(`it answered ${status}`)
    let contentType: string | undefined
    for (const [name, value] of headers) {
      if (name === "content-type") contentType = value
      else if (name === "content-encoding" && value.toLowerCase() !== "identity") return this.#unusable("its answer is encoded, which nobody asked for")
    }
    this.#reader = makeDeltaReader(contentType, readerBounds)
    this.#phase = "streaming"
  }

  chunk(bytes: Uint8Array): boolean {
    if (this.#phase !== "streaming") return true
    this.#read(this.#reader!.read(bytes))
    if (this.#reader!.isDone && this.#isStreaming()) {
      this.#end()
      setTimeout(() => this.#exchange?.abort(), tailMs).unref()
      return true
    }
    if (this.#fresh !== "" && !this.#settling) {
      this.#settling = true
      if (settling.push(this) === 1) setImmediate(settleAll)
    }
    return this.#takesMore
  }

  end(): void {
    this.#exchange = undefined
    if (this.#phase !== "streaming") return
    this.#read(this.#reader!.end())
    if (this.#isStreaming()) this.#end()
  }

  failed(error: AgentUnavailable): void {
    this.#exchange = undefined
    if (this.#phase !== "asked" && this.#phase !== "streaming") return
    this.#phase = "over"
    this.#owner.turnFailed(this, error)
  }

  #takesMore = true

  /** Called after the read, and whatever else was read with it: had that brought the end, the text would wait for the charge. */
  settle(): void {
    this.#settling = false
    if (this.#phase !== "streaming" || this.#fresh === "") return
    const text = this.#fresh
    this.#tell(text)
    this.#takesMore = this.#owner.turnText(this, text)
  }

  /** The client takes text again. */
  takesMore(): void {
    if (this.#takesMore) return
    this.#takesMore = true
    this.resume()
  }

  #tell(text: string): void {
    if (text === "") return
    this.#parts.push(text)
    this.#charsTold += text.length
    this.#fresh = ""
  }

  #read(text: string): void {
    if (text !== "") this.#fresh += text
    const problem = this.#reader!.problem
    if (problem?._tag === "agentError") return this.#unusable(problem.message)
    if (problem !== undefined) return this.#unusable(`it sent more than ${problem.bytesMax} bytes`)
    if (this.#charsTold + this.#fresh.length > limits.chatAnswerCharsMax) this.#unusable(`its answer is longer than ${limits.chatAnswerCharsMax} characters`)
  }

  #end(): void {
    const bytesMax = this.#agent.manifest?.output?.max_size_bytes
    if (bytesMax !== undefined && Buffer.byteLength(this.text) > bytesMax) return this.#unusable(`its answer is longer than the ${bytesMax} bytes of its manifest`)
    this.#phase = "ended"
    this.#owner.turnEnded(this)
  }

  #unusable(why: string): void {
    this.#phase = "over"
    this.#exchange?.abort()
    this.#owner.turnFailed(this, new AgentAnswerUnusable({ agent: this.#agent.ticker, why }))
  }

  /** A method, because reading may have ended the turn behind the compiler's back. */
  #isStreaming(): boolean {
    return this.#phase === "streaming"
  }
}
