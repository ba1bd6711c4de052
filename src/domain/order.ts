/** What an agent's answer to an order means. Pure. */

export type OrderAnswer =
  | { readonly _tag: "completed"; readonly outputText: string }
  | { readonly _tag: "failed"; readonly error: string }

/** Postgres stores neither NUL nor half a surrogate pair. */
const storable = (text: string): string => text.replaceAll("\0", "\ufffd").toWellFormed()

/** The `response` or `output` string of a JSON object, else the raw text (contracts/autx.md, Orders). */
const outputOf = (text: string): string => {
  if (!text.trimStart().startsWith("{")) return text
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body !== "object" || body === null) return text
    const { response, output } = body as { readonly response?: unknown; readonly output?: unknown }
    return typeof response === "string" ? response : typeof output === "string" ? output : text
  } catch {
    return text
  }
}

/** Only a 2xx completes an order. */
export const readAnswer = (status: number, body: Uint8Array): OrderAnswer =>
  status >= 200 && status < 300
    ? { _tag: "completed", outputText: storable(outputOf(new TextDecoder().decode(body))) }
    : { _tag: "failed", error: `the agent answered ${status}` }
