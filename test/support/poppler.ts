/**
 * Reads PDFs as people's viewers do: by Debian's poppler-utils, the installed
 * ones, or unpacked into .cache; where neither is possible the test fails.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"

/** From standard input to standard output. */
const streams = { pdftotext: ["-", "-"], pdftoppm: ["-"] }

const run = async (program: keyof typeof streams, options: ReadonlyArray<string>, pdf: Uint8Array): Promise<Buffer> => {
  const installed = join("/usr/bin", program)
  const isInstalled = existsSync(installed)
  const { root, libraryPath } = isInstalled ? { root: "/", libraryPath: "" } : await unpackDebian("poppler-utils")
  const ownFonts = !isInstalled && existsSync(join(root, "etc/fonts/fonts.conf"))
  const env = { ...process.env, ...(isInstalled ? {} : { LD_LIBRARY_PATH: libraryPath }), ...(ownFonts ? { FONTCONFIG_SYSROOT: root } : {}) }
  return new Promise((done, fail) => {
    const child = execFile(join(root, "usr/bin", program), [...options, ...streams[program]], { encoding: "buffer", maxBuffer: 64 * 1024 * 1024, env }, (error, stdout, stderr) =>
      error === null && stderr.length === 0 ? done(stdout) : fail(error ?? new Error(`${program}: ${stderr.toString()}`)))
    child.stdin!.on("error", () => {}).end(pdf)
  })
}

/** The text of each page, laid out as it looks. Fails when the reader complains about the file. */
export const pagesOf = async (pdf: Uint8Array): Promise<ReadonlyArray<string>> =>
  (await run("pdftotext", ["-layout", "-enc", "UTF-8"], pdf)).toString("utf8").split("\f").slice(0, -1)

/** A page as an eye sees it, at one pixel a point. */
export interface Picture {
  readonly width: number
  readonly height: number
  /** Whether anything is drawn between these, in parts of the page from its top left. */
  readonly isInked: (left: number, top: number, right: number, bottom: number) => boolean
}

/** Each page, drawn. */
export const picturesOf = async (pdf: Uint8Array): Promise<ReadonlyArray<Picture>> => {
  const pictures: Array<Picture> = []
  // One portable graymap (PGM) after the other.
  for (let rest = await run("pdftoppm", ["-r", "72", "-gray"], pdf); rest.length > 0;) {
    const [head, width, height] = /^P5\s(\d+)\s(\d+)\s255\s/.exec(rest.toString("latin1", 0, 64)) ?? []
    if (head === undefined) throw new Error("pdftoppm drew something else")
    const [w, h] = [Number(width), Number(height)]
    const pixels = rest.subarray(head.length, head.length + w * h)
    const isInked: Picture["isInked"] = (left, top, right, bottom) => {
      for (let y = Math.floor(top * h); y < bottom * h; y++) if (pixels.subarray(y * w + Math.floor(left * w), y * w + Math.ceil(right * w)).some((shade) => shade < 200)) return true
      return false
    }
    pictures.push({ width: w, height: h, isInked })
    rest = rest.subarray(head.length + w * h)
  }
  return pictures
}
