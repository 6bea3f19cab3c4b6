// Who may upload: a shared secret (Authorization: Bearer …), or a person whom Cloudflare Access let in.
//
// With neither set up, nobody may. The secret's length and content do not show in the time of the comparison.

import { Refusal } from "./refusal.js";

const KEYS_FOR = 60 * 60 * 1000; // Access rotates its keys every six weeks
const KEYS_AT_MOST_EVERY = 60 * 1000; // an unknown key id asks again, but not for every forged token
const LEEWAY = 60; // seconds, for clocks

let known = { domain: "", keys: new Map(), at: 0 };

export async function authorised(request, env) {
  if (!env.UPLOAD_SECRET && !(env.ACCESS_TEAM_DOMAIN && env.ACCESS_AUD)) {
    throw new Refusal(500, "not_configured", "the Worker has no UPLOAD_SECRET and no Cloudflare Access: set one of them");
  }
  const given = request.headers.get("Authorization")?.match(/^Bearer\s+(.+)$/i)?.[1];
  if (env.UPLOAD_SECRET && given && (await same(given, env.UPLOAD_SECRET))) return;
  const token = request.headers.get("Cf-Access-Jwt-Assertion");
  if (env.ACCESS_TEAM_DOMAIN && env.ACCESS_AUD && token && (await fromAccess(token, env))) return;
  throw new Refusal(401, "unauthorized", "send the upload secret as Authorization: Bearer <secret>", {
    "WWW-Authenticate": "Bearer",
  });
}

async function same(given, secret) {
  const digest = (text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  // Digests have one length, which timingSafeEqual wants, and which tells nothing of the secret's.
  return crypto.subtle.timingSafeEqual(await digest(given), await digest(secret));
}

async function fromAccess(token, env) {
  const domain = env.ACCESS_TEAM_DOMAIN.replace(/\/+$/, "");
  try {
    const [head, body, signature, ...more] = token.split(".");
    if (!signature || more.length) return false;
    const { alg, kid } = JSON.parse(text(head));
    if (alg !== "RS256" || typeof kid !== "string") return false;
    const key = await accessKey(domain, kid);
    if (!key) return false;
    const signed = new TextEncoder().encode(`${head}.${body}`);
    if (!(await crypto.subtle.verify("RSASSA-PKCS1-v1_5", key, bytes(signature), signed))) return false;
    const claims = JSON.parse(text(body));
    const now = Date.now() / 1000;
    return (
      claims.iss === domain &&
      [claims.aud].flat().includes(env.ACCESS_AUD) &&
      typeof claims.exp === "number" && claims.exp > now - LEEWAY &&
      (claims.nbf === undefined || claims.nbf < now + LEEWAY)
    );
  } catch (error) {
    // Not base64, not JSON, or the team's keys could not be had: no entry either way, and a line in the log.
    console.warn("Access token not accepted:", error?.message ?? String(error));
    return false;
  }
}

async function accessKey(domain, kid) {
  const age = known.domain === domain ? Date.now() - known.at : Infinity;
  if (age > KEYS_FOR || (!known.keys.has(kid) && age > KEYS_AT_MOST_EVERY)) {
    const answer = await fetch(`${domain}/cdn-cgi/access/certs`);
    if (!answer.ok) throw new Error(`${domain} answered ${answer.status} for its keys`);
    const keys = new Map();
    for (const jwk of (await answer.json()).keys ?? []) {
      if (jwk.kty !== "RSA") continue;
      const algorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
      keys.set(jwk.kid, await crypto.subtle.importKey("jwk", { kty: "RSA", n: jwk.n, e: jwk.e }, algorithm, false, ["verify"]));
    }
    known = { domain, keys, at: Date.now() };
  }
  return known.keys.get(kid);
}

function bytes(base64url) {
  return Uint8Array.from(atob(base64url.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
}

function text(base64url) {
  return new TextDecoder().decode(bytes(base64url));
}
