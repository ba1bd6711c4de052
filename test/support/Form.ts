/** Forms (multipart/form-data) byte by byte, as a caller may write them, and read again as an agent's server would. */

export const boundary = "a-boundary-of-a-test"

export interface FormFile {
  readonly name: string
  readonly type?: string
  readonly content: string | Uint8Array
}

/** One part, from its delimiter to its last byte. */
export const part = (head: string, content: string | Uint8Array = "", edge = boundary): Buffer =>
  Buffer.concat([Buffer.from(`--${edge}\r\n${head}\r\n\r\n`), Buffer.from(content as string), Buffer.from("\r\n")])

export const field = (name: string, value: string, edge = boundary): Buffer => part(`Content-Disposition: form-data; name="${name}"`, value, edge)

export const file = ({ name, type = "application/octet-stream", content }: FormFile, edge = boundary): Buffer =>
  part(`Content-Disposition: form-data; name="files"; filename="${name}"\r\nContent-Type: ${type}`, content, edge)

export const ending = (edge = boundary): Buffer => Buffer.from(`--${edge}--\r\n`)

export const formType = (edge = boundary) => ({ "content-type": `multipart/form-data; boundary=${edge}` })

/** A whole form as a request has it. */
export const formOf = (fields: Readonly<Record<string, string>>, files: ReadonlyArray<FormFile> = [], edge = boundary) => ({
  headers: formType(edge),
  body: Buffer.concat([...Object.entries(fields).map(([name, value]) => field(name, value, edge)), ...files.map((each) => file(each, edge)), ending(edge)])
})

/** What another implementation reads: that of Node's `fetch`. */
export const readForm = async (contentType: string, body: Uint8Array) => {
  const form = await new Response(body, { headers: { "content-type": contentType } }).formData()
  return Promise.all([...form].map(async ([name, value]) => typeof value === "string" ? { name, value, file: undefined } : {
    name, value: undefined, file: { name: value.name, type: value.type, content: Buffer.from(await value.arrayBuffer()) }
  }))
}
