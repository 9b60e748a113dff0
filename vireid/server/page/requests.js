// Requests to the service, and what they fail with.
import { t } from "./format.js";
import { api } from "./state.js";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The response of a route below /api/v1, in the gallery that is chosen; Refused where it is an error. */
export async function request(path, options = {}) {
  let answer;
  try {
    answer = await fetch(api(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, t("offline"));
  }
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  try {
    message = (await answer.json()).error ?? message;
  } catch {
    // no JSON: a proxy in between answered
  }
  throw new Refused(answer.status, message.charAt(0).toUpperCase() + message.slice(1));
}

export const getJson = async (path, options) => (await request(path, options)).json();
export const postJson = (path, body, options = {}) =>
  getJson(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options });

export const thumbnail = (id) => api(`thumbnail?id=${encodeURIComponent(id)}`);

