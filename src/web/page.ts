/** What every page of ours is: its text, and the policy that says what it may load and do. */
export interface Page {
  readonly html: string
  readonly contentSecurityPolicy: string
}

const entities: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" }

export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character]!)
