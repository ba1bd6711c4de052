/**
 * A Python of at least 3.10 that can import httpx and websockets: the machine's
 * own when it can, else Debian's packages, unpacked into .cache. Where neither is
 * possible the test fails, it is never skipped.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { unpackDebian } from "../../scripts/debian/unpackDebian.ts"

export interface Python {
  readonly command: string
  readonly env: Readonly<Record<string, string>>
}

const execute = promisify(execFile)
const debian = "/usr/bin/python3"
const proof = "import sys, httpx, websockets; assert sys.version_info >= (3, 10)"

export const findPython = async (): Promise<Python> => {
  // Nothing is written beside the sources.
  const env = { PATH: process.env["PATH"] ?? "", PYTHONDONTWRITEBYTECODE: "1" }
  for (const command of ["python3", debian]) if (await isFit({ command, env })) return { command, env }
  const unpacked = await Promise.all(["python3-httpx", "python3-websockets"].map((name) => unpackDebian(name)))
  const paths = unpacked.map(({ root }) => join(root, "usr/lib/python3/dist-packages"))
  const python = existsSync(debian)
    ? { command: debian, env: { ...env, PYTHONPATH: paths.join(":") } }
    // It came with the packages.
    : { command: join(unpacked[0]!.root, "usr/bin/python3"), env: { ...env, PYTHONPATH: paths.join(":"), LD_LIBRARY_PATH: unpacked[0]!.libraryPath } }
  await execute(python.command, ["-c", proof], { env: python.env })
  return python
}

const isFit = ({ command, env }: Python): Promise<boolean> =>
  execute(command, ["-c", proof], { env }).then(() => true, () => false)
