/** How a request that fits its schema is refused for a rule that it breaks, by the field that breaks it. */
import { Effect } from "effect"
import { RuleBroken } from "../../domain/errors.ts"

export const broken = (field: string, msg: string): RuleBroken => new RuleBroken({ issues: [{ loc: [field], msg }] })

/** The same of a field of the body, told with where it is. */
export const brokenInBody = (field: string, msg: string): RuleBroken => new RuleBroken({ issues: [{ loc: ["body", field], msg }] })

/** The known name that was given. */
export const oneOf = <A extends string>(field: string, known: ReadonlyArray<A>, given: string): Effect.Effect<A, RuleBroken> => {
  const found = known.find((name) => name === given)
  return found === undefined ? Effect.fail(broken(field, `must be one of ${known.join(", ")}`)) : Effect.succeed(found)
}
