/** The agent in a process of its own. */
import { serveAgent } from "../rig/agent.ts"

serveAgent()
