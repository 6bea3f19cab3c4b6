// An address for one direct upload to R2, for files that are too large for a Worker's request body.
//
// Signed with SigV4 in the query. The signature covers length, type, content hash and If-None-Match, so that the
// address is good for exactly this file, once. Whether it is a PDF shows when the pipeline opens it.

import { claim } from "./claim.js";
import { Refusal } from "./refusal.js";

const VALID_SECONDS = 900;

export async function presign(request, env) {
  if (!env.R2_ENDPOINT_URL || !env.R2_ACCESS_KEY_ID || !env.R2_SECRET_ACCESS_KEY || !env.BUCKET_NAME) {
    throw new Refusal(501, "not_configured", "direct uploads need R2_ENDPOINT_URL, BUCKET_NAME and the R2 keys as secrets");
  }
  const { name, size, sha256, urgent } = await wanted(request, env);
  const { key, exists } = await claim(env, sha256, name, urgent);
  if (exists) return Response.json({ key, size, sha256, duplicate: true });
  const headers = {
    "content-length": String(size),
    "content-type": "application/pdf",
    "if-none-match": "*",
    "x-amz-checksum-sha256": base64(sha256),
    "x-amz-meta-sha256": sha256,
  };
  const url = await signedUrl(env, key, headers, new Date());
  return Response.json({ key, sha256, duplicate: false, method: "PUT", url, headers, expires_in: VALID_SECONDS });
}

async function wanted(request, env) {
  const said = await request.json().catch(() => null);
  const { name, size, sha256, urgent } = said ?? {};
  if (typeof name !== "string" || !name || !Number.isSafeInteger(size) || !/^[0-9a-f]{64}$/.test(sha256 ?? "")) {
    throw new Refusal(400, "bad_request", 'send JSON: {"name": "a.pdf", "size": bytes, "sha256": "64 hex digits", "urgent": false}');
  }
  if (size <= 0) throw new Refusal(400, "empty", "the file has no bytes");
  const limit = Number(env.MAX_DIRECT_BYTES);
  if (!(size <= limit)) throw new Refusal(413, "too_large", `the file has ${size} bytes, the limit is ${limit}`);
  return { name, size, sha256, urgent: urgent === true };
}

/** AWS Signature Version 4, query form, as R2 takes it: region "auto", service "s3", payload not hashed. */
async function signedUrl(env, key, headers, now) {
  const url = new URL(env.R2_ENDPOINT_URL);
  const path = [url.pathname.replace(/\/+$/, ""), encode(env.BUCKET_NAME), ...key.split("/").map(encode)].join("/");
  const time = now.toISOString().replace(/[-:]|\.\d{3}/g, "");
  const scope = `${time.slice(0, 8)}/auto/s3/aws4_request`;
  const signed = { host: url.host, ...headers };
  const names = Object.keys(signed).sort();
  const query = [
    ["X-Amz-Algorithm", "AWS4-HMAC-SHA256"],
    ["X-Amz-Credential", `${env.R2_ACCESS_KEY_ID}/${scope}`],
    ["X-Amz-Date", time],
    ["X-Amz-Expires", String(VALID_SECONDS)],
    ["X-Amz-SignedHeaders", names.join(";")],
  ].map(([name, value]) => `${name}=${encode(value)}`).join("&");
  const canonical = [
    "PUT", path, query, ...names.map((name) => `${name}:${signed[name]}`), "", names.join(";"), "UNSIGNED-PAYLOAD",
  ].join("\n");
  const text = ["AWS4-HMAC-SHA256", time, scope, hex(await sha256(canonical))].join("\n");
  let secret = new TextEncoder().encode(`AWS4${env.R2_SECRET_ACCESS_KEY}`);
  for (const part of scope.split("/")) secret = await hmac(secret, part);
  return `${url.origin}${path}?${query}&X-Amz-Signature=${hex(await hmac(secret, text))}`;
}

function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function sha256(text) {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}

async function hmac(secret, text) {
  const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text));
}

function hex(buffer) {
  return Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function base64(hexadecimal) {
  return btoa(String.fromCharCode(...hexadecimal.match(/../g).map((pair) => parseInt(pair, 16))));
}
