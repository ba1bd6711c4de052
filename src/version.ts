/** The release, as pages and documents name it. */
export const version = "0.1.0"
