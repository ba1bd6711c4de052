/** Stands for nodeWebSocket.ts in bundles for browsers, which have a WebSocket of their own. */
export const NodeWebSocket = undefined
