export declare const buildSdk: (outdir?: string) => Promise<void>
