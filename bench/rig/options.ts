/** What a run may be told on its command line; everything has a default and an upper bound. */
export interface Options {
  readonly names: ReadonlyArray<string>
  /** Turns that the things compared take. */
  readonly rounds: number
  /** Of one turn. */
  readonly seconds: number
  readonly connections: number
  readonly peers: boolean
  /** The gateway's CPU profile of the measured turns, in the folder of the results. */
  readonly profile: boolean
  readonly results: string
}

/** `undefined`: not understood. */
export const readOptions = (args: ReadonlyArray<string>): Options | undefined => {
  const flags = new Map(args.filter((arg) => arg.startsWith("--")).map((arg) => [arg.split("=", 1)[0]!, arg.slice(arg.indexOf("=") + 1)]))
  const number = (name: string, fallback: number, max: number): number => {
    const text = flags.get(name)
    return text === undefined ? fallback : /^\d{1,4}$/.test(text) && Number(text) > 0 && Number(text) <= max ? Number(text) : NaN
  }
  const options: Options = {
    names: args.filter((arg) => !arg.startsWith("--")),
    rounds: number("--rounds", 5, 100),
    seconds: number("--seconds", 4, 600),
    connections: number("--connections", 64, 1_000),
    peers: !flags.has("--no-peers"),
    profile: flags.has("--profile"),
    results: flags.get("--results") ?? "bench/results"
  }
  const known = new Set(["--rounds", "--seconds", "--connections", "--no-peers", "--profile", "--results"])
  const isGood = [...flags.keys()].every((name) => known.has(name)) && !Number.isNaN(options.rounds + options.seconds + options.connections)
  return isGood ? options : undefined
}
