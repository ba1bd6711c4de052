/**
 * What a chat needs of a WebSocket: the browsers' own interface, which the `ws`
 * package and Node's global have too. Where none is given and none is global
 * (Node 18 and 20), this package's own client is loaded.
 */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  send(text: string): void
  close(code?: number, reason?: string): void
}

export type WebSocketConstructor = new (url: string) => WebSocketLike

export const loadWebSocket = async (given: WebSocketConstructor | undefined): Promise<WebSocketConstructor> => {
  const known = given ?? (globalThis as { readonly WebSocket?: WebSocketConstructor }).WebSocket
  if (known !== undefined) return known
  return (await import("./nodeWebSocket.ts")).NodeWebSocket
}
