/** Examples of registration, logins, letters and passwords. */
import { randomUUID } from "node:crypto"
import { expect } from "vitest"
import type { Examples, Request } from "../Example.ts"
import { owner } from "../../support/acf.ts"
import type { Person, World } from "../../support/World.ts"

const user = { id: "<id>", email: "<email>", email_verified: true, created_at: "<time>" }
const loggedIn = { access_token: "<jwt>", refresh_token: "<refresh token>", token_type: "bearer", expires_in: 900, user }
/** How long the wait is depends on the moment. */
const seconds = { asymmetricMatch: (actual: unknown) => Number.isInteger(actual) && Number(actual) >= 1 && Number(actual) <= 900 }
const inSeconds = { asymmetricMatch: (actual: unknown) => /^Too many attempts: try again in \d+ seconds$/.test(String(actual)) }
const tooMany = { detail: inSeconds, retry_after: seconds }

const password = "correct horse"
const from = (address: string) => ({ "x-forwarded-for": address })

/** Does the same ten times; the eleventh is the example. */
const afterTen = async (world: World, path: string, request: Request): Promise<Request> => {
  for (let i = 0; i < 10; i++) await world.call("POST", `/v1${path}`, request)
  return request
}

export const auth: Examples = {
  "autx.auth.register": {
    success: { request: () => ({ body: { email: `${randomUUID()}@Example.com`, password, unknown: "fields are ignored" } }), answer: loggedIn },
    refusals: {
      AlreadyExists: {
        request: (_, { email }) => ({ body: { email, password } }),
        status: 409, answer: { detail: "This email is registered already: log in, or reset its password" }
      }
    }
  },
  "autx.auth.login": {
    success: { request: (_, { email, password }) => ({ body: { email, password } }), answer: loggedIn },
    refusals: {
      Unauthenticated: {
        request: () => ({ body: { email: `${randomUUID()}@example.com`, password }, headers: from("192.0.2.1") }),
        status: 401, answer: { detail: "Wrong email or password" }
      },
      TooManyAttempts: {
        request: (world, { email }) => afterTen(world, "/auth/login", { body: { email, password }, headers: from("192.0.2.2") }),
        status: 429, answer: tooMany
      }
    }
  },
  "autx.auth.refresh": {
    success: { request: (_, { refreshToken }) => ({ body: { refresh_token: refreshToken } }), answer: loggedIn },
    refusals: {
      Unauthenticated: {
        request: async (world, { refreshToken }) => {
          await world.call("POST", "/v1/auth/refresh", { body: { refresh_token: refreshToken } })
          return { body: { refresh_token: refreshToken } }
        },
        status: 401, answer: { detail: "This refresh token was used before, so its login has ended: log in again" }
      }
    }
  },
  "autx.auth.logout": { success: { request: () => ({}), answer: undefined }, refusals: {} },
  "autx.auth.me": { success: { request: () => ({}), answer: user }, refusals: {} },
  "autx.auth.verify": {
    success: {
      request: async (world) => ({ path: `/auth/verify?token=${await world.link(await world.user({ verified: false }), "verify")}` }),
      answer: { detail: "Your email is verified" }
    },
    refusals: {}
  },
  "autx.auth.verify.resend": {
    success: { request: () => ({}), answer: { detail: "A letter is on its way, unless your email is verified already" } },
    refusals: {
      TooManyAttempts: {
        request: async (world) => afterTen(world, "/auth/verify/resend", { token: (await world.user({ verified: false })).accessToken }),
        status: 429, answer: tooMany
      }
    }
  },
  "autx.auth.password.change": {
    success: { request: (_, person) => ({ body: { current_password: person.password, new_password: password } }), answer: undefined },
    refusals: {
      TooManyAttempts: {
        request: (world, { accessToken }) => afterTen(world, "/auth/password", { token: accessToken, body: { current_password: "not it", new_password: password } }),
        status: 429, answer: tooMany
      }
    }
  },
  "autx.auth.password.forgot": {
    success: { request: () => ({ body: { email: `${randomUUID()}@example.com` }, headers: from("192.0.2.3") }), answer: { detail: "If the email is registered, a letter is on its way" } },
    refusals: {
      TooManyAttempts: {
        request: (world) => afterTen(world, "/auth/password/forgot", { body: { email: `${randomUUID()}@example.com` }, headers: from("192.0.2.4") }),
        status: 429, answer: tooMany
      }
    }
  },
  "autx.auth.password.reset": {
    success: {
      request: async (world, person: Person) => ({ body: { token: await world.link(person, "reset"), new_password: password } }),
      answer: undefined
    },
    refusals: {}
  },
  "autx.account.links.create": {
    success: {
      request: async (world) => ({ body: { dialect: "acf", key: (await owner(world)).token } }),
      answer: { dialect: "acf", owner_id: "owner-<id>", balance_usd: "0.00" }
    },
    refusals: {
      RuleBroken: {
        request: async (world) => ({ body: { dialect: "autx", key: (await owner(world)).token } }),
        status: 422, answer: { detail: "body.dialect: must be one of acf", errors: [{ loc: ["body", "dialect"], msg: "must be one of acf" }] }
      },
      Unauthenticated: { request: () => ({ body: { dialect: "acf", key: "acf_0000000000000000:sec_wrong" } }), status: 401, answer: { detail: "The credential is not valid" } },
      AlreadyExists: {
        request: async (world, { accessToken: token }) => {
          await world.call("POST", "/v1/account/links", { token, body: { dialect: "acf", key: (await owner(world)).token } })
          return { body: { dialect: "acf", key: (await owner(world)).token } }
        },
        status: 409, answer: expect.objectContaining({ detail: expect.stringMatching(/link/) })
      },
      TooManyAttempts: {
        request: async (world, { accessToken: token }) => {
          const wrong = { token, body: { dialect: "acf", key: "acf_0000000000000000:sec_wrong" }, headers: from("192.0.2.5") }
          for (let i = 0; i < 5; i++) await world.call("POST", "/v1/account/links", wrong)
          return wrong
        },
        status: 429, answer: tooMany
      }
    }
  }
}
