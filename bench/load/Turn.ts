/** One prompt and what came of it: when its first chunk was there, and whether its text is whole. */
import { chunkChars, promptOf, textOf } from "./chatAgent.ts"

let turns = 0

export interface TurnShape {
  readonly chunks: number
  readonly gapMs: number
}

export interface TurnListener {
  heard(chunks: number): void
  /** `isWhole`: every character came, once, in order, and no other. */
  ended(turn: Turn, isWhole: boolean): void
}

export class Turn {
  readonly prompt: string
  /** When it should have been said. */
  readonly dueMs: number
  /** When the first of its chunks came. */
  firstMs = NaN
  readonly #expected: string
  readonly #listener: TurnListener
  #text = ""

  constructor({ chunks, gapMs }: TurnShape, dueMs: number, listener: TurnListener) {
    const token = (turns++).toString(36).padStart(8, "0")
    this.prompt = promptOf(token, chunks, gapMs)
    this.dueMs = dueMs
    this.#expected = textOf(token, chunks)
    this.#listener = listener
  }

  heard(text: string): void {
    if (this.#text === "") this.firstMs = performance.now()
    this.#text += text
    this.#listener.heard(text.length / chunkChars)
  }

  ended(): void {
    this.#listener.ended(this, this.#text === this.#expected)
  }
}
