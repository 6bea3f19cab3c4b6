// Names and keys: pure functions from what a client says to where an upload stands in the lake.

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const NAME_BYTES = 120; // of UTF-8; with date and ULID well below the 255 bytes that a file's name may have

/** 26 characters that sort by time: 48 bits of milliseconds, 80 random bits. */
export function ulid(now, random = crypto.getRandomValues(new Uint8Array(16))) {
  let time = "";
  for (let rest = now, i = 0; i < 10; i++) {
    time = CROCKFORD[rest % 32] + time;
    rest = Math.floor(rest / 32);
  }
  return time + Array.from(random, (byte) => CROCKFORD[byte % 32]).join("");
}

/** The file name as a part of a key: letters and digits of any script, dots, dashes, underscores; ends in ".pdf". */
export function safeName(name) {
  // Cut before the patterns below look at it: on a long run of dashes they take the square of its length.
  const last = name.split(/[/\\]/).pop().slice(0, 4 * NAME_BYTES).normalize("NFC");
  const stem = last
    .replace(/\.pdf$/i, "")
    .replace(/[^\p{L}\p{M}\p{N}._-]+/gu, "-")
    .replace(/\.{2,}/g, ".")
    .replace(/^[.-]+|[.-]+$/g, "");
  return (cut(stem, NAME_BYTES).replace(/[.-]+$/, "") || "document") + ".pdf";
}

/** Where an upload that came in at `now` (milliseconds) stands: keys sort by time within their prefix. */
export function inboxKey(env, name, urgent, now) {
  const day = new Date(now).toISOString().slice(0, 10).replaceAll("-", "/");
  return `${folder(env.LAKE_PREFIX)}${folder(env.INBOX || "inbox")}${urgent ? "urgent/" : ""}${day}/${ulid(now)}-${safeName(name)}`;
}

/** The record of who was first with this content; outside the inbox, so that no pipeline takes it for an upload. */
export function indexKey(env, sha256) {
  return `${folder(env.LAKE_PREFIX)}uploads-by-sha256/${sha256}`;
}

/** A prefix as it stands in keys, however its slashes were set: "" or "lake/". */
function folder(prefix) {
  const bare = (prefix ?? "").replace(/^\/+/, "").replace(/\/+$/, "");
  return bare && `${bare}/`;
}

function cut(text, bytes) {
  const encoder = new TextEncoder();
  const characters = Array.from(text);
  while (encoder.encode(characters.join("")).length > bytes) characters.pop();
  return characters.join("");
}
