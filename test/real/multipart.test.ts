/** Orders with files, over real sockets: what the agent gets, when it gets it, what it costs, and what is refused when. */
import { randomBytes } from "node:crypto"
import type { IncomingMessage, ServerResponse } from "node:http"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { settledOrder } from "../contract/Autx.ts"
import { makeGate } from "../contract/Example.ts"
import { boundary, ending, field, file, type FormFile, formOf, part, readForm } from "../support/Form.ts"
import { LoopbackAgent } from "../support/LoopbackAgent.ts"
import { Uploader } from "../support/Uploader.ts"
import { type Person, type World, makeWorld } from "../support/World.ts"

let world: World
let caller: Person
const agents: Array<LoopbackAgent> = []
beforeAll(async () => {
  world = await makeWorld()
  caller = await world.user()
  await caller.fund("1000.00")
})
afterAll(async () => {
  for (const agent of agents) agent.close()
  await world.stop()
})
afterEach(async () => {
  expect((await world.audit()).filter(({ ok }) => !ok)).toEqual([])
})

interface Got {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly body: Buffer
}

/** A listed agent on a server of its own. */
const listed = async (behave: (request: IncomingMessage, response: ServerResponse) => void, input: object = {}) => {
  const agent = await new LoopbackAgent((response, request) => behave(request, response)).listen()
  agents.push(agent)
  const { id, ticker } = await world.agent({ price: "0.50", more: { endpoint_url: agent.url, manifest: { input } } })
  return { id, ticker, agent }
}

/** One that reads all of its forms and keeps them. */
const reading = async (input: object = {}) => {
  const got: Array<Got> = []
  const site = await listed((request, response) => {
    const parts: Array<Buffer> = []
    request.on("data", (part: Buffer) => parts.push(part)).on("end", () => {
      got.push({ request, response, body: Buffer.concat(parts) })
      response.end("done")
    })
  }, input)
  return { ...site, got }
}

const filesOf = async ({ request, body }: Got) =>
  (await readForm(request.headers["content-type"]!, body)).flatMap(({ name: field, file }) => file === undefined ? [] : [{ field, ...file }])

const order = (agentId: string, files: ReadonlyArray<FormFile> = [], headers = {}) => {
  const form = formOf({ agent_id: agentId, prompt: "Read this" }, files)
  return world.call("POST", "/v1/orders/multipart", { token: caller.accessToken, body: form.body, headers: { ...form.headers, ...headers } })
}
const settled = (id: string) => settledOrder(world, caller.accessToken, id)
const money = async () => {
  const { balance_usd, reserved_usd } = (await world.call("GET", "/v1/credits/balance", { token: caller.accessToken })).json
  return [balance_usd, reserved_usd]
}
const ordersOf = async (agentId: string) =>
  world.sql<Array<{ status: string; error: string | null }>>`select status, error from orders where agent_id = ${agentId} order by id`

/** The fields, and the head of a file that goes on. */
const begun = (agentId: string): ReadonlyArray<Buffer> =>
  [field("agent_id", agentId), field("prompt", "Read this"), Buffer.from(`--${boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n`)]
const rest = Buffer.concat([Buffer.from("\r\n"), ending()])
const block = Buffer.alloc(1024 * 1024, "all work and no play ")

describe("a form", () => {
  it("reaches its agent byte by byte, whatever the sizes of its files", async () => {
    const { ticker, got } = await reading()
    const sizes = [0, 1, 2, 65_535, 65_536, 65_537, 524_287, 524_288, 524_289, 3_000_000]
    const files = sizes.map((size, at) => ({ name: `${at}.bin`, type: "application/x-own", content: randomBytes(size) }))
    const reply = await order(ticker, files)
    expect([reply.status, (await settled(reply.json.id)).status]).toEqual([201, "completed"])
    const seen = await filesOf(got[0]!)
    expect(seen.map(({ name, type, field, content }) => [field, name, type, content.length])).toEqual(files.map(({ name, type, content }) => ["files", name, type, content.length]))
    for (const [at, { content }] of seen.entries()) expect(content.equals(files[at]!.content), `${sizes[at]} bytes`).toBe(true)
  })

  it("reaches it with everything that looks like a boundary", async () => {
    const { ticker, got } = await reading()
    const content = `\r\n--${boundary.slice(0, -1)}\r\n--\r\n\r\n--\r\n--tollgate-\r\n${"\r\n-".repeat(100_000)}`
    const reply = await order(ticker, [{ name: "a", content }, { name: "b", content: "\r\n" }])
    await settled(reply.json.id)
    expect((await filesOf(got[0]!)).map((each) => each.content.toString())).toEqual([content, "\r\n"])
  })

  it("is the agent's own: the prompt, repeated files, our protocol, and nothing of the caller's", async () => {
    const { ticker, got } = await reading({ type: "multipart", accepts_files: true })
    const form = formOf({ unknown: "field", agent_id: ticker, prompt: "Schöne Grüße\r\n\"€\"", payment_method: "usdc" }, [{ name: "a.csv", type: "Text/CSV; charset=UTF-8", content: "a" }, { name: "a.csv", content: "b" }])
    const reply = await world.call("POST", "/v1/orders/multipart", { token: caller.accessToken, body: form.body, headers: { ...form.headers, cookie: "a=b", "x-custom": "1" } })
    expect(await settled(reply.json.id)).toMatchObject({ status: "completed", prompt: "Schöne Grüße\r\n\"€\"", payment_method: "usdc", amount_paid: 0.5, output_text: "done" })
    const { request, body } = got[0]!
    expect(request.headers).toMatchObject({ "x-autx-protocol": "1", "x-autx-request-id": reply.json.id, accept: expect.stringMatching(/^application\/json/), authorization: expect.stringMatching(/^Bearer eyJ/) })
    expect(request.headers.authorization).not.toContain(caller.accessToken)
    for (const name of ["cookie", "x-custom", "idempotency-key"]) expect(request.headers, name).not.toHaveProperty(name)
    expect(body.toString()).not.toContain(boundary)
    expect(body.toString()).toContain("\r\nContent-Type: Text/CSV; charset=UTF-8\r\n")
    expect((await readForm(request.headers["content-type"]!, body)).map(({ name, value }) => [name, value])).toEqual([["prompt", "Schöne Grüße\r\n\"€\""], ["files", undefined], ["files", undefined]])
  })

  it.each([
    ["quotes", "filename=\"a%22b.txt\"", "a\"b.txt", "a%22b.txt"], ["escaped quotes", "filename=\"a\\\"b.txt\"", "a\"b.txt", "a%22b.txt"],
    ["other scripts", "filename=\"naïve-文書-🙂.txt\"", "naïve-文書-🙂.txt", "naïve-文書-🙂.txt"], ["an escaped script", "filename*=UTF-8''%E6%96%87%E6%9B%B8.txt", "文書.txt", "文書.txt"],
    ["a line's end and a header", "filename*=UTF-8''a%0D%0AX-Evil:%201%0D%0A%0D%0Ab.txt", "a\r\nX-Evil: 1\r\n\r\nb.txt", "a%0D%0AX-Evil: 1%0D%0A%0D%0Ab.txt"],
    ["a NUL", "filename*=UTF-8''a%00b.txt", "a%00b.txt", "a%00b.txt"], ["a backslash before the quote", "filename*=UTF-8''b.txt%5C", "b.txt%5C", "b.txt%5C"],
    ["a path", "filename=\"../../etc/passwd.txt\"", "../../etc/passwd.txt", "../../etc/passwd.txt"]
  ])("keeps a file's name with %s, and lets it end no header", async (_, fileName, read, written) => {
    const { ticker, got } = await reading()
    const body = Buffer.concat([field("agent_id", ticker), field("prompt", "x"), part(`Content-Disposition: form-data; name="files"; ${fileName}`, "content"), ending()])
    const reply = await world.call("POST", "/v1/orders/multipart", { token: caller.accessToken, body, headers: formOf({}).headers })
    await settled(reply.json.id)
    expect((await filesOf(got[0]!)).map(({ name, content }) => [name, content.toString()])).toEqual([[read, "content"]])
    expect(got[0]!.body.toString()).toContain(`\r\nContent-Disposition: form-data; name="files"; filename="${written}"\r\nContent-Type: application/octet-stream\r\n\r\ncontent\r\n`)
  })

  it("may have no files, for an agent that takes forms", async () => {
    const { ticker, got } = await reading({ type: "multipart", accepts_files: false })
    const reply = await order(ticker)
    expect((await settled(reply.json.id)).status).toBe("completed")
    expect((await readForm(got[0]!.request.headers["content-type"]!, got[0]!.body)).map(({ name, value }) => [name, value])).toEqual([["prompt", "Read this"]])
  })

  it("as another implementation writes it is taken too", async () => {
    const { ticker, got } = await reading()
    const form = new FormData()
    for (const [name, value] of [["agent_id", ticker], ["prompt", "Read this"]] as const) form.append(name, value)
    for (const name of ["one.txt", "two \"2\".txt"]) form.append("files", new File([name], name, { type: "text/plain" }))
    const response = await fetch(`${world.url}/v1/orders/multipart`, { method: "POST", body: form, headers: { authorization: `Bearer ${caller.accessToken}` } })
    expect(response.status).toBe(201)
    await settled((await response.json() as { readonly id: string }).id)
    expect((await filesOf(got[0]!)).map(({ name, content }) => [name, content.toString()])).toEqual([["one.txt", "one.txt"], ["two \"2\".txt", "two \"2\".txt"]])
  })
})

describe("while a form is under way", () => {
  it("nothing is reserved before its first file begins, and the agent has its first bytes before the last are sent", async () => {
    const before = await money()
    let first!: (bytes: Buffer) => void
    const arrived = new Promise<Buffer>((done) => { first = done })
    const { id, agent } = await listed((request, response) => {
      let seen = Buffer.alloc(0)
      request.on("data", (bytes: Buffer) => {
        seen = Buffer.concat([seen, bytes])
        if (seen.includes("the beginning")) first(seen)
      }).on("end", () => response.end("done"))
    })
    const [fields, prompt, head] = begun(id)
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(fields!, prompt!)
    expect([await money(), agent.asked]).toEqual([before, []])
    upload.write(head!, Buffer.from("the beginning"))
    expect((await arrived).toString()).toMatch(/filename="a\.bin"[^]*the beginning/)
    expect((await money())[1]).toBe("0.50")
    expect(await ordersOf(id)).toEqual([{ status: "pending", error: null }])
    const { status, json } = await upload.end(rest)
    expect([status, json.status]).toEqual([201, "pending"])
    expect((await settled(json.id)).status).toBe("completed")
  })

  it("its caller waits for a slow agent, and nothing is lost", async () => {
    const go = makeGate()
    let size = 0
    const { id, agent } = await listed((request, response) => {
      request.pause()
      void go.opened.then(() => {
        request.on("data", (bytes: Buffer) => { size += bytes.length }).on("end", () => response.end("done")).resume()
      })
    })
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(...begun(id))
    const poured = upload.pour(block, 32)
    await agent.seen(1)
    // What the sockets between the two take is far less.
    expect(await upload.stalled()).toBeLessThan(16 * block.length)
    go.open()
    await poured
    const { status, json } = await upload.end(rest)
    expect([status, (await settled(json.id)).status]).toEqual([201, "completed"])
    expect(size).toBeGreaterThan(32 * block.length)
  })

  it("its caller waits while the price is not durable yet, and so does the agent", async () => {
    const { id, agent } = await reading()
    const [locked, unlock] = [makeGate(), makeGate()]
    const lock = world.sql.begin(async (tx) => {
      await tx`select from accounts where id = ${caller.accountId} for update`
      locked.open()
      await unlock.opened
    })
    await locked.opened
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(...begun(id))
    const poured = upload.pour(block, 32)
    expect([await upload.stalled() < 16 * block.length, agent.asked]).toEqual([true, []])
    unlock.open()
    await Promise.all([lock, poured])
    const { status, json } = await upload.end(rest)
    expect([status, (await settled(json.id)).status]).toEqual([201, "completed"])
  })

  it("an agent that answers before its end has decided the order, and the rest is read and dropped", async () => {
    const { id, agent } = await listed((_request, response) => response.end("enough"))
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(...begun(id))
    await agent.seen(1)
    const [{ id: orderId }] = await world.sql<[{ id: string }]>`select id from orders where agent_id = ${id}`
    expect(await settled(orderId)).toMatchObject({ status: "completed", output_text: "enough" })
    await upload.pour(Buffer.alloc(65_536), 64)
    const { status, json } = await upload.end(rest)
    expect([status, json.id]).toEqual([201, orderId])
  })

  it("an agent that answers before its end keeps what it earned when the rest turns out wrong, or never comes", async () => {
    const { id, agent } = await listed((_request, response) => response.end("enough"))
    const uploads = await Promise.all([1, 2].map(async (nth) => {
      const upload = new Uploader(world.port, caller.accessToken)
      upload.write(...begun(id))
      await agent.seen(nth)
      return upload
    }))
    for (const { id: orderId } of await world.sql<Array<{ id: string }>>`select id from orders where agent_id = ${id}`) await settled(orderId)
    uploads[0]!.leave()
    const { status } = await uploads[1]!.end(Buffer.from(`\r\n--${boundary}`))
    expect([status, (await ordersOf(id)).map((each) => each.status)]).toEqual([201, ["completed", "completed"]])
  })

  it("an agent that hangs up fails the order, which is refunded, and the form is read to its end", async () => {
    const before = await money()
    const { id, agent } = await listed((request) => request.socket.destroy())
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(...begun(id))
    await agent.seen(1)
    await upload.pour(Buffer.alloc(65_536), 64)
    const { status, json } = await upload.end(rest)
    expect([status, (await settled(json.id)).status, await money()]).toEqual([201, "failed", before])
  })

  it("an agent that can't be reached fails the order, which is refunded, and is not tried again", async () => {
    const before = await money()
    const agent = await new LoopbackAgent().listen()
    const { id } = await world.agent({ price: "0.50", more: { endpoint_url: agent.url } })
    agent.close()
    const reply = await order(id, [{ name: "a", content: randomBytes(300_000) }])
    expect([reply.status, (await settled(reply.json.id)).error, await money(), agent.asked]).toEqual([201, "the agent could not be asked: unreachable", before, []])
  })
})

describe("before anything is reserved", () => {
  it.each([
    ["files for an agent that takes none", { accepts_files: false }, "The agent takes other input: a prompt without files"],
    ["a form for an agent that takes JSON", { type: "json" }, "The agent takes other input: json"],
    ["a first file of another type", { file_types: [".pdf", "TXT"] }, "The agent takes other input: files of the types .pdf, TXT"]
  ])("%s is refused", async (_, input, detail) => {
    const before = await money()
    const { id, agent } = await reading(input)
    const reply = await order(id, [{ name: "pdf", content: "x" }])
    expect([reply.status, reply.json, await money(), agent.asked, await ordersOf(id)]).toEqual([422, { detail }, before, [], []])
  })

  it.each([["json", { type: "json", accepts_files: true }], ["one of the types, in whatever case", { file_types: ["pdf", ".TXT"] }], ["any type when none is named", { file_types: [] }]])("a file is taken: %s", async (_, input) => {
    const { id } = await reading(input)
    const reply = await order(id, [{ name: "a.Pdf", content: "x" }, { name: "b.tar.txt", content: "x" }])
    expect([reply.status, (await settled(reply.json.id)).status]).toEqual([201, "completed"])
  })

  const late = (msg: string, ...names: ReadonlyArray<string>) => names.map((name) => ({ loc: ["body", name], msg }))
  it.each<readonly [string, () => ReadonlyArray<Uint8Array>, number, ReadonlyArray<object>]>([
    ["fields behind the files", () => [file({ name: "a", content: "x" }), field("agent_id", "SUMM"), field("prompt", "x"), ending()], 422, late("Expected before the first file", "agent_id", "prompt")],
    ["a prompt behind the files", () => [field("agent_id", "SUMM"), file({ name: "a", content: "x" }), field("prompt", "x"), ending()], 422, late("Expected before the first file", "prompt")],
    ["no prompt at all", () => [field("agent_id", "SUMM"), ending()], 422, late("Missing key", "prompt")],
    ["a prompt that is too long", () => [field("agent_id", "SUMM"), field("prompt", "x".repeat(100_001)), file({ name: "a", content: "x" }), ending()], 422, [{ loc: ["body", "prompt"], msg: expect.stringContaining("100000") }]],
    ["a prompt that is empty", () => [field("agent_id", "SUMM"), field("prompt", ""), ending()], 422, [{ loc: ["body", "prompt"], msg: expect.any(String) }]],
    ["a prompt as a file", () => [field("agent_id", "SUMM"), part("Content-Disposition: form-data; name=\"prompt\"; filename=\"p.txt\"", "x"), ending()], 422, late("Expected text: files go by the name files", "prompt")],
    ["a file by another name", () => [field("agent_id", "SUMM"), field("prompt", "x"), part("Content-Disposition: form-data; name=\"file\"; filename=\"p.txt\"", "x"), ending()], 422, late("Expected text: files go by the name files", "file")],
    ["a file without a name", () => [field("agent_id", "SUMM"), field("prompt", "x"), field("files", "text"), ending()], 422, late("Expected a file with a name", "files")],
    ["a file with an empty name", () => [field("agent_id", "SUMM"), field("prompt", "x"), file({ name: "", content: "" }), ending()], 422, late("Expected a file with a name", "files")],
    ["a NUL in the prompt", () => [field("agent_id", "SUMM"), field("prompt", "a\0b"), ending()], 422, late("Contains a character that can't be stored", "prompt")],
    ["a prompt that is no UTF-8", () => [field("agent_id", "SUMM"), part("Content-Disposition: form-data; name=prompt", Buffer.from([0xff])), ending()], 400, late("Not UTF-8", "prompt")]
  ])("%s: told where it is wrong", async (_, pieces, status, errors) => {
    const reply = await world.call("POST", "/v1/orders/multipart", { token: caller.accessToken, body: Buffer.concat(pieces()), headers: formOf({}).headers })
    expect([reply.status, reply.json.errors], reply.text).toEqual([status, errors])
  })

  it("the caller who is short learns it before a byte of the file is sent", async () => {
    const poor = await world.user()
    const { id, agent } = await reading()
    const upload = new Uploader(world.port, poor.accessToken)
    upload.write(...begun(id))
    const { status, json } = await upload.answer
    expect([status, json.detail, json.required_usd, agent.asked]).toEqual([402, "Insufficient credits", "0.50", []])
  })
})

describe("the gateway, after the price is reserved,", () => {
  /** A form that begins well, and how it goes on when the agent has it. */
  const goesOn = async (input: object, more: ReadonlyArray<Uint8Array>) => {
    const before = await money()
    const cut = makeGate()
    const { id, agent } = await listed((request) => request.on("close", () => { if (!request.complete) cut.open() }).resume(), input)
    const upload = new Uploader(world.port, caller.accessToken)
    upload.write(...begun(id))
    await agent.seen(1)
    const { status, json } = await upload.end(...more)
    // By now the refund is durable.
    expect([await money(), await ordersOf(id)]).toEqual([before, [{ status: "failed", error: "the caller's form did not arrive, or was refused" }]])
    await cut.opened
    return [status, json.detail]
  }

  it.each<readonly [string, object, ReadonlyArray<Uint8Array>, number, string]>([
    ["a second file of another type", { file_types: ["bin"] }, [Buffer.from("\r\n"), file({ name: "b.exe", content: "x" }), ending()], 422, "The agent takes other input: files of the types bin"],
    ["more than the agent takes, prompt and files together", { max_size_bytes: 100 }, [Buffer.alloc(92), rest], 413, "The body is too large: at most 100 bytes are allowed"],
    ["a field behind the files", {}, [Buffer.from("\r\n"), field("payment_method", "credits"), ending()], 422, "body.payment_method: Expected before the first file"],
    ["a file by another name", {}, [Buffer.from("\r\n"), part("Content-Disposition: form-data; name=\"upload\"; filename=\"b\"", "x"), ending()], 422, "body.upload: Expected text: files go by the name files"],
    ["more files than a form may have", {}, [Buffer.from("\r\n"), ...Array.from({ length: 98 }, () => file({ name: "b", content: "x" })), ending()], 422, "body: At most 100 fields and files are taken"],
    ["a part that is not valid", {}, [Buffer.from("\r\n"), part("Content-Type: text/plain", "x"), ending()], 400, "body: A part has no name"],
    ["a form without an end", {}, [Buffer.from("x".repeat(1_000))], 400, "body: The form breaks off before its last boundary"]
  ])("refuses %s, when everything is refunded", async (_, input, more, status, detail) => {
    expect(await goesOn(input, more)).toEqual([status, detail])
  })

  it("passes what the agent takes at most: 100 bytes, and what a form has at most: 98 files", async () => {
    const { id, got } = await reading({ max_size_bytes: 100 })
    const files = Array.from({ length: 98 }, (_, at) => ({ name: `${at}`, content: at < 91 ? "x" : "" }))
    const reply = await order(id, files)
    expect([reply.status, (await settled(reply.json.id)).status, (await filesOf(got[0]!)).length]).toEqual([201, "completed", 98])
  })
})

describe("a form with an Idempotency-Key", () => {
  const repeatable = (key: string, form: ReturnType<typeof formOf>) =>
    world.call("POST", "/v1/orders/multipart", { token: caller.accessToken, body: form.body, headers: { ...form.headers, "idempotency-key": key } })

  it("is one order, also when its retry has another boundary, and another form with the key is refused", async () => {
    const { ticker, agent, got } = await reading()
    const fields = { agent_id: ticker, prompt: "Read this" }
    const files = [{ name: "a", content: randomBytes(100_000) }, { name: "b", content: "" }]
    const first = await repeatable("form-1", formOf(fields, files))
    await settled(first.json.id)
    const again = await repeatable("form-1", formOf(fields, files, "another-boundary"))
    expect([again.status, again.text, again.headers.get("idempotent-replayed")]).toEqual([201, first.text, "true"])
    const others = [
      formOf(fields, [files[0]!]), formOf(fields, [files[1]!, files[0]!]), formOf(fields, [{ ...files[0]!, name: "c" }, files[1]!]), formOf(fields, [{ ...files[0]!, type: "text/plain" }, files[1]!]),
      formOf({ ...fields, prompt: "Read that" }, files), formOf({ ...fields, more: "" }, files)
    ]
    for (const other of others) expect((await repeatable("form-1", other)).status).toBe(409)
    expect([agent.asked.length, (await filesOf(got[0]!)).map(({ content }) => content.length)]).toEqual([1, [100_000, 0]])
  })

  it("leaves no trace when its second file is refused, or its end is wrong", async () => {
    const before = await money()
    const { ticker, agent } = await reading({ file_types: ["txt"], max_size_bytes: 200 })
    const fields = { agent_id: ticker, prompt: "Read this" }
    const good = { name: "a.txt", content: "x" }
    const bad = [formOf(fields, [good, { name: "b.exe", content: "" }]), formOf(fields, [good, { name: "b.txt", content: "x".repeat(200) }])]
    const cut = { ...bad[0]!, body: bad[0]!.body.subarray(0, -6) }
    const statuses = []
    for (const form of [...bad, cut]) statuses.push((await repeatable("form-2", form)).status)
    expect([statuses, agent.asked, await money()]).toEqual([[422, 413, 400], [], before])
    expect((await repeatable("form-2", formOf(fields, [good]))).status).toBe(201)
  })

  it("may have 1 MiB, and no more", async () => {
    const { ticker, agent } = await reading()
    const sized = (size: number) => {
      const bare = formOf({ agent_id: ticker, prompt: "x" }, [{ name: "a", content: "" }]).body.length
      return formOf({ agent_id: ticker, prompt: "x" }, [{ name: "a", content: Buffer.alloc(size - bare) }])
    }
    const over = await repeatable("form-3", sized(1024 * 1024 + 1))
    expect([over.status, over.json.detail, agent.asked]).toEqual([413, "The body is too large: at most 1048576 bytes are allowed", []])
    expect((await repeatable("form-3", sized(1024 * 1024))).status).toBe(201)
  })
})

it("an order that is JSON is still refused by an agent that takes forms", async () => {
  const { ticker } = await reading({ type: "multipart" })
  const reply = await world.call("POST", "/v1/orders", { token: caller.accessToken, body: { agent_id: ticker, prompt: "x" } })
  expect([reply.status, reply.json.detail]).toEqual([422, "The agent takes other input: multipart"])
})
