// What the page holds: the gallery, its description, the query's pictures, the last answer and its marks.

export const state = {
  gallery: "", // its name; empty for the token's first
  about: null,
  pictures: [], // {file, url, box, wide} with what people.js finds {people, open, found, looking, reason}, or {like: id}
  answer: null, // the last one, with all hits that were loaded
  sent: null, // the request that it belongs to: {body, files}
  marks: new Map(), // id -> true or false
  showHeat: false,
  listed: [], // the hits that the dialog goes through
  opened: -1, // place in it
};

/** The address of a route of the gallery that is chosen. */
export function api(path) {
  const url = `/api/v1/${path}`;
  if (!state.gallery) return url;
  return `${url}${path.includes("?") ? "&" : "?"}gallery=${encodeURIComponent(state.gallery)}`;
}
