/** acf as its contract tests call it: each row by a new owner with a key of the lowest role that it takes. */
import { acf } from "../../src/dialects/acf/index.ts"
import type { Row } from "../../src/http/endpoint.ts"
import type { Role } from "../../src/kernel/market/Keys.ts"
import { type Owner, owner } from "../support/acf.ts"
import { type Product, makeMasked, makeSend } from "./Product.ts"

export const adminSecret = "the operator's own secret"

export const roleFor = (row: Row): Role => row.scope as Role | undefined ?? "buyer"

export const acfProduct: Product<Owner> = {
  dialect: acf,
  mount: "/acf",
  // `record`: calls are recorded. `bare`: they are paid from credits, and there is no secret of the operator's and no SECRETS_KEY.
  worlds: { record: { acfAdminSecret: adminSecret }, bare: { acfSettlement: "prepaid", secretsKey: undefined } },
  // What a public row shows somebody must have made.
  caller: (world, row) => owner(world, { role: row.auth === "public" ? "provider" : roleFor(row) }),
  credential: async (row, caller) => row.auth === "public" || row.auth === "optional" ? undefined : caller.token,
  masks: [
    [/\bowner-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g, "<owner>"],
    [/\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/g, "<id>"],
    [/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3})?\+00:00$/g, "<time>"],
    [/^\d{4}-\d\d-\d\d$/g, "<date>"],
    [/^\d{4}-W\d\d$/g, "<week>"],
    [/\bacf_[0-9a-f]{16}\b/g, "<key id>"],
    [/\bsec_[\w-]{43}(?![\w-])/g, "<secret>"],
    [/\bhttp:\/\/127\.0\.0\.1:\d+\/agent\/\d+\b/g, "<endpoint>"]
  ]
}

export const send = makeSend(acfProduct)
export const masked = makeMasked(acfProduct)
