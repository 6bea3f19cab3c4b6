// One PDF from a request into the inbox: checked, verified, create-only; nothing is kept of what is refused.
//
// Up to BUFFERED bytes the body is held in memory, so that its hash is known before anything is written. Larger
// bodies are streamed; for them the client says the hash first (X-Content-SHA256), and R2 verifies it at the end.

import { announce } from "./events.js";
import { claim } from "./claim.js";
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

  const stored =
    size <= BUFFERED
      ? await buffered(request, env, { name, urgent, size, said })
      : await streamed(request, env, { name, urgent, size, said });
  if (!stored.duplicate) context.waitUntil(announce(env, stored));
  const { key, sha256, duplicate } = stored;
  return Response.json({ key, size, sha256, duplicate }, { status: duplicate ? 200 : 201 });
}

async function buffered(request, env, { name, urgent, size, said }) {
  const body = await whole(request.body, size);
  if (!hasMagic(body)) throw notPdf();
  const sha256 = hex(await crypto.subtle.digest("SHA-256", body));
  if (said && said !== sha256) throw mismatch();
  return put(env, body, { name, urgent, size, sha256 });
}

async function streamed(request, env, { name, urgent, size, said }) {
  if (!said) {
    throw new Refusal(428, "sha256_required", `a file above ${BUFFERED} bytes needs its SHA-256 (hex) as X-Content-SHA256`);
  }
  const reader = request.body.getReader();
  const first = await start(reader);
  if (!hasMagic(first)) {
    // Read to the end and dropped: a client that is cut off while it sends does not see the answer.
    while (!(await reader.read()).done);
    throw notPdf();
  }
  // FixedLengthStream fails when fewer or more bytes come than were promised: a cut connection stores nothing.
  const { readable, writable } = new FixedLengthStream(size);
  const pumping = pump(first, reader, writable);
  try {
    const stored = await put(env, readable, { name, urgent, size, sha256: said });
    if (stored.duplicate) await pumping.catch(() => {});
    else await pumping;
    return stored;
  } catch (error) {
    const cut = await pumping.then(() => null, (reason) => reason);
    if (cut) throw new Refusal(400, "incomplete", "the body broke off; nothing was kept");
    if (/sha-?256|checksum|digest|10037/i.test(error?.message ?? "")) throw mismatch();
    throw error;
  }
}

async function put(env, body, { name, urgent, size, sha256 }) {
  const { key, exists } = await claim(env, sha256, name, urgent);
  if (exists) {
    if (body instanceof ReadableStream) await body.cancel();
    return { key, sha256, duplicate: true };
  }
  const object = await env.BUCKET.put(key, body, {
    onlyIf: new Headers({ "If-None-Match": "*" }),
    sha256,
    httpMetadata: { contentType: "application/pdf" },
    customMetadata: { sha256 },
  });
  // null: the same content came in beside us under the same key.
  if (!object) return { key, sha256, duplicate: true };
  return { key, sha256, duplicate: false, size, etag: object.etag };
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
  if (got !== size) throw new Refusal(400, "incomplete", "the body broke off; nothing was kept");
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

async function pump(first, reader, writable) {
  const writer = writable.getWriter();
  try {
    await writer.write(first);
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await writer.write(value);
    }
    await writer.close();
  } catch (error) {
    await Promise.allSettled([writer.abort(error), reader.cancel(error)]);
    throw error;
  }
}

function hasMagic(bytes) {
  return new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC_WITHIN)).includes(MAGIC);
}

function notPdf() {
  return new Refusal(415, "not_a_pdf", "there is no %PDF- in the first kilobyte");
}

function mismatch() {
  return new Refusal(422, "sha256_mismatch", "the bytes that arrived do not have the SHA-256 that was said; nothing was kept");
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
