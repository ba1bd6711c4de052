/** What a run may be told on its command line; everything has a default and an upper bound. */
export interface Options {
  readonly names: ReadonlyArray<string>
  /** Turns that the things compared take. */
  readonly rounds: number
  /** Of one turn. */
  readonly seconds: number
  readonly connections: number
  /** The largest cluster, measured or simulated; `undefined`: as large as the scenario is by itself. */
  readonly nodes: number | undefined
  readonly peers: boolean
  /** The gateway's CPU profile of the measured turns, in the folder of the results. */
  readonly profile: boolean
  readonly results: string
}

/** `undefined`: not understood. */
export const readOptions = (args: ReadonlyArray<string>): Options | undefined => {
  const flags = new Map(args.filter((arg) => arg.startsWith("--")).map((arg) => [arg.split("=", 1)[0]!, arg.slice(arg.indexOf("=") + 1)]))
  const number = (name: string, fallback: number, max: number, min = 1): number => {
    const text = flags.get(name)
    return text === undefined ? fallback : /^\d{1,4}$/.test(text) && Number(text) >= min && Number(text) <= max ? Number(text) : NaN
  }
  const options: Options = {
    names: args.filter((arg) => !arg.startsWith("--")),
    rounds: number("--rounds", 5, 100),
    seconds: number("--seconds", 4, 600),
    connections: number("--connections", 64, 1_000),
    nodes: flags.has("--nodes") ? number("--nodes", NaN, 300, 2) : undefined,
    peers: !flags.has("--no-peers"),
    profile: flags.has("--profile"),
    results: flags.get("--results") ?? "bench/results"
  }
  const known = new Set(["--rounds", "--seconds", "--connections", "--nodes", "--no-peers", "--profile", "--results"])
  const isGood = [...flags.keys()].every((name) => known.has(name)) && !Number.isNaN(options.rounds + options.seconds + options.connections + (options.nodes ?? 0))
  return isGood ? options : undefined
}
