/** The sign of all our pages: a barrier that opens. */
export const icon = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#f2b233"/>
<rect x="6" y="14" width="6" height="13" rx="1.2" fill="#1f2430"/>
<g transform="rotate(-32 9 16)">
<rect x="5" y="13.2" width="26" height="5.6" rx="1.6" fill="#1f2430"/>
<path d="M13 14.6h3.4l-1.7 2.8h-3.4zM19 14.6h3.4l-1.7 2.8h-3.4zM25 14.6h3.4l-1.7 2.8h-3.4z" fill="#fbfaf7"/>
</g>
</svg>
`
