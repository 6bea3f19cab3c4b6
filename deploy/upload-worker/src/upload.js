// One PDF from a request into the inbox: checked, verified, create-only; nothing is kept of what is refused.
//
// Up to BUFFERED bytes the body is held in memory, so that its hash is known before anything is written. Larger
// bodies are streamed; for them the client says the hash first (X-Content-SHA256), and R2 verifies it at the end.
// A body is read to its end whatever happens: a client that is cut off while it sends does not see the answer.

import { announce } from "./events.js";
import { claim, unclaim } from "./claim.js";
import { Refusal } from "./refusal.js";

const BUFFERED = 16 * 1024 * 1024; // a Worker has 128 MB for all its requests
const MAGIC_WITHIN = 1024; // readers accept %PDF- anywhere in the first kilobyte
const MAGIC = "%PDF-";

export async function upload(request, env, context) {
  const url = new URL(request.url);
  const name = fileName(url);
  const urgent = ["1", "true", "yes"].includes(url.searchParams.get("urgent") ?? "");
  const size = declaredSize(request, env);
  const said = declaredHash(request);

  const take = size <= BUFFERED ? buffered : streamed;
  const taking = take(request, env, { name, urgent, size, said });
  // Also when the client is gone: what was begun is to be tidied up.
  context.waitUntil(taking.catch(() => {}));
  const stored = await taking;
  if (!stored.duplicate) context.waitUntil(announce(env, stored));
  const { key, sha256, duplicate } = stored;
  return Response.json({ key, size, sha256, duplicate }, { status: duplicate ? 200 : 201 });
}

async function buffered(request, env, { name, urgent, size, said }) {
  const body = await whole(request.body, size);
  if (!hasMagic(body)) throw notPdf();
  const sha256 = hex(await crypto.subtle.digest("SHA-256", body));
  if (said && said !== sha256) throw mismatch();
  const claimed = await claim(env, sha256, name, urgent);
  if (claimed.exists) return { key: claimed.key, sha256, duplicate: true };
  try {
    return answer(claimed, await put(env, claimed.key, body, sha256), { sha256, size });
  } catch (error) {
    await unclaim(env, claimed);
    throw error;
  }
}

async function streamed(request, env, { name, urgent, size, said }) {
  if (!said) {
    throw new Refusal(428, "sha256_required", `a file above ${BUFFERED} bytes needs its SHA-256 (hex) as X-Content-SHA256`);
  }
  const reader = request.body.getReader();
  const first = await start(reader);
  if (!hasMagic(first)) {
    while (!(await reader.read()).done);
    throw notPdf();
  }
  // FixedLengthStream fails when fewer or more bytes come than were promised: a cut connection stores nothing.
  const { readable, writable } = new FixedLengthStream(size);
  let stop;
  const stopped = new Promise((resolve) => (stop = resolve));
  const reading = pump(first, reader, writable, stopped);
  let claimed = {};
  let object = null;
  let fault = null;
  try {
    claimed = await claim(env, said, name, urgent);
    if (!claimed.exists) object = await put(env, claimed.key, readable, said);
  } catch (error) {
    fault = error;
  }
  stop(); // nobody takes what is still to come: a duplicate, or R2 has failed
  const { got, sha256 } = await reading;
  if (object) return answer(claimed, object, { sha256: said, size });
  if (fault || got !== size || sha256 !== said) await unclaim(env, claimed);
  if (got !== size) throw incomplete();
  if (sha256 !== said) throw mismatch();
  if (fault) throw fault;
  return answer(claimed, null, { sha256, size });
}

function put(env, key, body, sha256) {
  return env.BUCKET.put(key, body, {
    onlyIf: new Headers({ "If-None-Match": "*" }),
    sha256,
    httpMetadata: { contentType: "application/pdf" },
    customMetadata: { sha256 },
  });
}

/** What became of the upload. No object: the same content stands under the key already, or came in beside us. */
function answer({ key }, object, { sha256, size }) {
  return object ? { key, sha256, duplicate: false, size, etag: object.etag } : { key, sha256, duplicate: true };
}

function fileName(url) {
  const below = url.pathname.slice("/uploads".length).replace(/^\/+/, "");
  let name = url.searchParams.get("name") ?? below;
  try {
    name = url.searchParams.has("name") ? name : decodeURIComponent(below);
  } catch {
    throw new Refusal(400, "bad_name", "the file name in the address is not valid percent-encoded UTF-8");
  }
  if (!name) throw new Refusal(400, "bad_name", "give the file's name: PUT /uploads/<name> or POST /uploads?name=<name>");
  return name;
}

function declaredSize(request, env) {
  const said = request.headers.get("Content-Length");
  if (!said || !/^\d+$/.test(said)) throw new Refusal(411, "length_required", "send a Content-Length");
  const size = Number(said);
  const limit = Number(env.MAX_BYTES);
  if (!(limit > 0)) throw new Refusal(500, "not_configured", "MAX_BYTES is not set to a number");
  if (size === 0 || !request.body) throw new Refusal(400, "empty", "the file has no bytes");
  if (size > limit) {
    throw new Refusal(413, "too_large", `the file has ${size} bytes, the limit is ${limit}: use POST /uploads/presign`);
  }
  return size;
}

function declaredHash(request) {
  const said = request.headers.get("X-Content-SHA256")?.toLowerCase();
  if (said && !/^[0-9a-f]{64}$/.test(said)) throw new Refusal(400, "bad_sha256", "X-Content-SHA256 must be 64 hex digits");
  return said;
}

/** The body, which must have exactly `size` bytes. */
async function whole(stream, size) {
  const body = new Uint8Array(size);
  let got = 0;
  try {
    for await (const piece of stream) {
      if (got + piece.length > size) break;
      body.set(piece, got);
      got += piece.length;
    }
  } catch {
    got = -1;
  }
  if (got !== size) throw incomplete();
  return body;
}

/** At least the first kilobyte, or all there is. */
async function start(reader) {
  let first = new Uint8Array(0);
  while (first.length < MAGIC_WITHIN) {
    const { done, value } = await reader.read();
    if (done) break;
    const longer = new Uint8Array(first.length + value.length);
    longer.set(first);
    longer.set(value, first.length);
    first = longer;
  }
  return first;
}

/**
 * Reads the body to its end, hashes it, and passes it on until `stopped`. Never fails: {got, sha256} of what came.
 * `writable` is closed when all is passed on, and broken off when the body is.
 */
async function pump(first, reader, writable, stopped) {
  const digest = new crypto.DigestStream("SHA-256");
  const hashing = digest.getWriter();
  const writer = writable.getWriter();
  let open = true;
  let got = 0;
  stopped.then(() => (open = false));
  const pass = async (doing) => {
    // Raced: a write to a stream that nobody reads any more waits for ever.
    await Promise.race([doing.catch(() => (open = false)), stopped]);
  };
  const take = async (piece) => {
    got += piece.length;
    await hashing.write(piece);
    if (open) await pass(writer.write(piece));
  };
  try {
    await take(first);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await take(value);
    }
    if (open) await pass(writer.close());
  } catch (error) {
    got = -1; // the client is gone
    await pass(writer.abort(error));
  }
  await hashing.close();
  return { got, sha256: hex(await digest.digest) };
}

function hasMagic(bytes) {
  return new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC_WITHIN)).includes(MAGIC);
}

function notPdf() {
  return new Refusal(415, "not_a_pdf", "there is no %PDF- in the first kilobyte");
}

function incomplete() {
  return new Refusal(400, "incomplete", "the body broke off; nothing was kept");
}

function mismatch() {
  return new Refusal(422, "sha256_mismatch", "the bytes that arrived do not have the SHA-256 that was said; nothing was kept");
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
