/** Questions to the server. Addresses are relative: the token stands in the page's own address. */

const NOT_READY = 202;
const TOO_MANY = 503; // requests at once
const AGAIN = 1000; // milliseconds between questions whose answer is not ready yet

/** An answer that is no result; the message is the server's sentence. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when there was no answer
   */
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** Whether asking again will help: the server is still computing. */
  get isWaiting() {
    return this.status === NOT_READY || this.status === TOO_MANY;
  }
}

/**
 * @param {string} name such as "pictures"
 * @param {Object<string, *>} [query] empty values are left out
 * @param {AbortSignal} [signal]
 * @returns {Promise<*>} the JSON value; rejects with ApiError, or AbortError
 */
export async function ask(name, query = {}, signal = undefined) {
  let response;
  try {
    response = await fetch(address(name, query), { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the viewer does not answer: is `vocprep view` still running?", 0);
  }
  return result(response);
}

/**
 * Ask until the answer is ready.
 * @param {string} name
 * @param {Object<string, *>} query
 * @param {AbortSignal} signal
 * @param {function(string): void} [waiting] called with the sentence of an answer that is not ready
 * @returns {Promise<*>}
 */
export async function askUntilReady(name, query, signal, waiting = () => {}) {
  for (;;) {
    try {
      return await ask(name, query, signal);
    } catch (error) {
      if (!error.isWaiting) throw error;
      waiting(error.message);
      await pause(AGAIN, signal);
    }
  }
}

/**
 * @param {Object<string, *>} query v, id, layer and so on
 * @returns {string} the address of a picture
 */
export function imageUrl(query) {
  return address("image", query);
}

/**
 * The sentence about a picture that did not load.
 * @param {string} url
 * @returns {Promise<ApiError>}
 */
export async function imageFault(url) {
  try {
    await result(await fetch(url));
    return new ApiError("the picture could not be shown", 0);
  } catch (error) {
    return error instanceof ApiError ? error : new ApiError(error.message, 0);
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>} rejects with AbortError
 */
export function pause(milliseconds, signal = undefined) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

function address(name, query) {
  const pairs = Object.entries(query).filter(
    ([, value]) => value !== "" && value !== null && value !== undefined,
  );
  return `api/${name}?${new URLSearchParams(pairs)}`;
}

async function result(response) {
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  if (response.ok && response.status !== NOT_READY) return isJson ? response.json() : null;
  const said = isJson ? (await response.json()).error : null;
  throw new ApiError(said ?? `the server answered with status ${response.status}`, response.status);
}
