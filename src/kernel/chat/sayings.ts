/**
 * What one piece of an agent's streamed answer says: some text, that the answer
 * is complete, or that the agent failed. A piece is the data of an SSE event, a
 * line, or a whole JSON answer.
 *
 * Shapes of text, the first that fits: `choices[0]` of an OpenAI chunk or
 * completion; one of `textKeys` with a string, or `delta` with an object that has
 * `content` or `text` (Anthropic); a JSON string; anything that is neither a JSON
 * object nor a JSON string, as it is. An object that fits none (a role, a tool
 * call, a ping) says nothing. An object with an `error` is a failure, whatever
 * else it has.
 */
export interface AgentError {
  readonly _tag: "agentError"
  /** In the agent's words, at most `errorLengthMax` characters, fit to be stored. */
  readonly message: string
}

/** The agent has said that it is done. */
export const done = { _tag: "done" } as const

export type Saying = string | AgentError | typeof done | undefined

const errorLengthMax = 500
/** In the order in which they are looked for. */
const textKeys = ["delta", "data", "text", "content", "response", "output"]

type Fields = { readonly [key: string]: unknown }

/** JSON's value, or `undefined` when it is no JSON. */
export const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}

export const isDoneMark = (data: string): boolean => data.trim() === "[DONE]"

/** Neither a NUL nor half of a surrogate pair can be stored: both become U+FFFD. */
export const storable = (text: string): string => {
  const wellFormed = text.isWellFormed() ? text : text.toWellFormed()
  return wellFormed.includes("\0") ? wellFormed.replaceAll("\0", "\uFFFD") : wellFormed
}

/** What a JSON value says; neither a number, a truth value, `null` nor a list says anything. */
export const valueSaying = (value: unknown, data: string): Saying => {
  if (typeof value === "string") return value
  if (!isFields(value)) return undefined
  if (value["error"]) return errorOf(value, data)
  if (value["type"] === "message_stop") return done
  const choices = value["choices"]
  return Array.isArray(choices) ? choiceText(choices[0]) : textIn(value["delta"], ["content", "text"]) ?? textIn(value, textKeys)
}

/** May be one. Other values are no different from plain text. */
const isObjectOrString = (data: string): boolean => {
  const text = data.trim()
  return text.length > 1 && (text.startsWith("{") && text.endsWith("}") || text.startsWith("\"") && text.endsWith("\""))
}

/** A list has no field of these names. */
const isFields = (value: unknown): value is Fields => typeof value === "object" && value !== null

const textIn = (value: unknown, keys: ReadonlyArray<string>): string | undefined => {
  if (!isFields(value)) return undefined
  for (const key of keys) {
    const text = value[key]
    if (typeof text === "string") return text
  }
  return undefined
}

const choiceText = (choice: unknown): string | undefined =>
  isFields(choice) ? textIn(choice["delta"], ["content"]) ?? textIn(choice, ["text"]) ?? textIn(choice["message"], ["content"]) : undefined

const errorOf = (value: unknown, data: string): AgentError => {
  const error = isFields(value) && value["error"] ? value["error"] : value
  const words = (typeof error === "string" ? error : textIn(error, ["message"]) || textIn(value, ["message"])) || data
  return { _tag: "agentError", message: storable(words.slice(0, errorLengthMax)) }
}

/** What looks like JSON and is none costs an exception, ten microseconds. After so many in one answer the rest is text. */
const brokenMax = 1_000
/** A longer piece is not worth remembering. */
const templateLengthMax = 2_048
/** So many lessons in a row may be of no use: then each piece has something new around its text. */
const lessonsMax = 8
const keyedTexts = new RegExp(`"(?:${textKeys.join("|")})"\\s*:\\s*("(?:[^"\\\\]|\\\\.)*")`, "g")

/**
 * Reads the events or lines of one answer. They are mostly the same around their
 * text (id, model, index): once one is taken apart, the text of the next is read
 * without parsing all that again, which costs several times as much.
 *
 * Guarantee: this changes no saying. Learnt is only the place of a string that is
 * an object's value and, when it alone changes, is the text. Whatever stands there
 * later is one JSON string; then all else that the piece says is what it was.
 */
export class Sayings {
  #brokenLeft = brokenMax
  #before = ""
  #after = ""
  #lessonsLeft = lessonsMax

  /** `event`: the event's name, "" when it has none. */
  of(data: string, event: string): Saying {
    const isNamedEnd = event === "error" || event === "message_stop"
    const known = isNamedEnd ? undefined : this.#knownText(data)
    if (known !== undefined) return known
    const value = this.#valueOf(data)
    if (event === "error") return errorOf(value, data)
    if (isNamedEnd || isDoneMark(data)) return done
    if (value === undefined) return data
    const saying = valueSaying(value, data)
    if (typeof saying === "string") this.#learn(data, saying)
    return saying
  }

  #valueOf(data: string): unknown {
    if (this.#brokenLeft === 0 || !isObjectOrString(data)) return undefined
    const value = jsonOf(data)
    if (value === undefined && --this.#brokenLeft === 0) this.#giveUp()
    return value
  }

  /** The text of a piece that differs from the learnt one in nothing else; `undefined` for any other. */
  #knownText(data: string): string | undefined {
    const before = this.#before
    const after = this.#after
    const end = data.length - after.length
    // Comparing slices is several times as fast as `startsWith` and `endsWith`.
    if (before === "" || data.slice(0, before.length) !== before || data.slice(end) !== after) return undefined
    const text = jsonOf(data.slice(before.length, end))
    if (typeof text === "string") {
      this.#lessonsLeft = lessonsMax
      return text
    }
    if (text === undefined) this.#giveUp()
    return undefined
  }

  /** Pieces that are alike at both ends and not between: trying them further would cost an exception each. */
  #giveUp(): void {
    this.#before = ""
    this.#lessonsLeft = 0
  }

  /** Remembers what is around the text of this piece. */
  #learn(data: string, text: string): void {
    if (this.#lessonsLeft === 0 || data.length > templateLengthMax || !data.startsWith("{")) return
    this.#lessonsLeft--
    for (const match of data.matchAll(keyedTexts)) {
      const literal = match[1]!
      if (jsonOf(literal) !== text) continue
      const end = match.index + match[0].length
      const before = data.slice(0, end - literal.length)
      const after = data.slice(end)
      const other = `${text}x`
      if (valueSaying(jsonOf(before + JSON.stringify(other) + after), "") !== other) return
      this.#before = before
      this.#after = after
      return
    }
  }
}
