// Calls of the studio. What goes wrong is a Problem with words for people.

export class Problem extends Error {
  constructor(status, error, hint) {
    super(hint ? `${error}\n${hint}` : error);
    this.status = status; // 0: nobody answered
  }
}

export async function call(method, path, body) {
  const options = { method, headers: {} };
  if (body instanceof Blob) options.body = body;
  else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["content-type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    throw new Problem(0, String(error.message ?? error));
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, told.error ?? answer.statusText, told.hint);
  return told;
}

export const get = (path) => call("GET", path);
export const encode = encodeURIComponent;

/**
 * Follow a request to its end: by events, and by asking again where the connection is lost.
 * Returns a function that ends it.
 */
export function follow(id, { changed, gone, offline }) {
  let source = null;
  let timer = 0;
  let ended = false;
  const end = () => { ended = true; source?.close(); clearTimeout(timer); };
  const listen = () => {
    source = new EventSource(`api/requests/${id}/events`);
    source.addEventListener("state", (event) => {
      const state = JSON.parse(event.data);
      if (["done", "failed", "cancelled"].includes(state.state)) end();
      changed(state);
    });
    source.addEventListener("error", () => { source.close(); if (!ended) ask(); });
  };
  const ask = async () => {
    try {
      const state = await get(`api/requests/${id}`);
      if (ended) return;
      changed(state);
      if (["done", "failed", "cancelled"].includes(state.state)) end();
      else listen();
    } catch (problem) {
      if (ended) return;
      if (problem.status === 404) { end(); gone(); return; }
      offline(problem);
      timer = setTimeout(ask, 2000);
    }
  };
  listen();
  return end;
}
