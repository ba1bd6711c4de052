/** The tests that every product's words for its refusals go through. */
import { describe, expect, it } from "vitest"
import type { GatewayError, GatewayErrorTag } from "../../src/domain/errors.ts"
import type { Dialect, Rendered } from "../../src/http/dialect.ts"

interface Golden {
  readonly error: GatewayError
  readonly status: number
  readonly headers?: ReadonlyArray<readonly [string, string]>
  readonly body: object
}
/** Total: the compiler asks for a new tag's. */
export type Goldens = { readonly [T in GatewayErrorTag]: ReadonlyArray<Golden> }

export const after = (seconds: number): ReadonlyArray<readonly [string, string]> => [["retry-after", String(seconds)]]

export const describeErrors = (dialect: Dialect, goldens: Goldens): void => {
  const cases = Object.entries(goldens).flatMap(([tag, some]) => some.map((golden, at) => [some.length === 1 ? tag : `${tag} (${at + 1})`, golden] as const))
  const rendered = (error: GatewayError): Rendered => (dialect.errors[error._tag] as (error: GatewayError) => Rendered)(error)

  it.each(cases)("words %s", (_, { error, status, headers, body }) => {
    expect(rendered(error)).toEqual({ status, ...(headers === undefined ? {} : { headers }), body })
  })

  describe("whatever is refused", () => {
    it.each(cases)("%s is told in one text, without an id that was only guessed", (_, { error }) => {
      const { body } = rendered(error) as { readonly body: { readonly detail: string } }
      expect(body.detail).toMatch(/^\S.{5,200}$/)
      expect(JSON.stringify(body)).not.toContain("guessed")
    })

    it.each(cases.filter(([, { status }]) => status === 429 || status === 503))("%s says when to try again, in whole seconds", (_, { error }) => {
      const { headers, body } = rendered(error) as { readonly headers: ReadonlyArray<readonly [string, string]>; readonly body: { readonly retry_after?: number } }
      const [value] = headers.filter(([name]) => name === "retry-after").map(([, text]) => text)
      expect(value).toMatch(/^[1-9]\d*$/)
      expect([undefined, Number(value)]).toContain(body.retry_after)
    })
  })
}
