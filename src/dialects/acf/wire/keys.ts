/** Keys on the wire. The secret is in the answer to its creation and nowhere else. */
import { Schema } from "effect"
import { object, orElse, text } from "../../../http/rows/fields.ts"

const Role = text(50).annotate({ description: "`buyer`, `provider` or `admin`" })
const KeyId = Schema.String.annotate({ examples: ["acf_a1b2c3d4e5f60718"] })

export const NewKey = Schema.Struct({
  owner_id: text(200).annotate({ description: "The owner's name, chosen by itself", examples: ["my-agent"] }),
  role: Role.pipe(orElse("buyer")),
  rate_limit: Schema.Int.annotate({ description: "Calls a minute, 1 to 300" }).pipe(orElse(60)),
  wallet_address: Schema.NullOr(text(200)).pipe(orElse(null))
}).annotate(object("AcfNewKey"))

export const CreatedKey = Schema.Struct({
  key_id: KeyId, secret: Schema.String, role: Schema.String, rate_limit: Schema.Int, message: Schema.String
}).annotate({ identifier: "AcfCreatedKey" })

export const KeyPair = Schema.Struct({ key_id: text(255), secret: text(512) }).annotate(object("AcfKeyPair"))

export const ValidKey = Schema.Struct({
  valid: Schema.Literal(true), owner_id: Schema.String, role: Schema.String, rate_limit: Schema.Int
}).annotate({ identifier: "AcfValidKey" })
